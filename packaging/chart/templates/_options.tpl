{{/* A value as text: numbers of a file are floating, and would be written as 1e+06. */}}
{{- define "cosco.text" -}}
{{- if and (kindIs "float64" .) (eq (floor .) .) -}}
{{ int64 . }}
{{- else -}}
{{ . }}
{{- end -}}
{{- end }}

{{/*
Other options of a service, as arguments. service: metadata or daemons; options: its map; given: the
options that the chart gives itself, and the values that say what they are.
*/}}
{{- define "cosco.options" -}}
{{- $service := .service -}}
{{- $given := .given -}}
{{- range $name, $value := .options }}
{{- if hasKey $given $name }}
{{- fail (printf "%s.options.%s: the chart gives this option itself; set %s" $service $name (get $given $name)) }}
{{- end }}
{{- if kindIs "bool" $value }}
- {{ printf "--%s" $name | quote }}
{{- else }}
{{- range $one := (kindIs "slice" $value | ternary $value (list $value)) }}
- {{ printf "--%s=%s" $name (include "cosco.text" $one) | quote }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* What the options of both services say of who is let in. */}}
{{- define "cosco.tlsOptions" -}}
{{- if .Values.insecure }}
- --insecure
{{- else }}
- --tls-cert=/etc/cosco/tls/tls.crt
- --tls-key=/etc/cosco/tls/tls.key
- --tls-ca=/etc/cosco/tls/ca.crt
- {{ printf "--tls-client-auth=%s" .Values.tls.clientAuth | quote }}
{{- end }}
{{- end }}

{{- define "cosco.logOptions" -}}
- {{ printf "--log-level=%s" .Values.logLevel | quote }}
- {{ printf "--log-format=%s" .Values.logFormat | quote }}
{{- end }}

{{/* Options that both services have, and that the chart gives. */}}
{{- define "cosco.givenOfBoth" -}}
insecure: insecure
listen: listenHost and port
log-level: logLevel
log-format: logFormat
tls-cert: the Secrets of tls
tls-key: the Secrets of tls
tls-ca: the Secrets of tls
tls-client-auth: tls.clientAuth
{{- end }}

{{- define "cosco.metadataOptions" -}}
{{- $metadata := .Values.metadata -}}
{{- $host := $metadata.httpReachable | ternary .Values.listenHost "127.0.0.1" -}}
- {{ printf "--listen=%s:%d" .Values.listenHost (int $metadata.port) | quote }}
- {{ printf "--http=%s" ($metadata.httpPort | int | eq 0 | ternary "" (printf "%s:%d" $host (int $metadata.httpPort))) | quote }}
{{- if $metadata.httpReachable }}
{{- range concat (list (include "cosco.metadataHost" .)) $metadata.httpHosts }}
- {{ printf "--http-host=%s" . | quote }}
{{- end }}
{{- end }}
- --store=sqlite:////var/lib/cosco/metadata.db
# A pod takes longer to come back, with its disk, than a process does.
- {{ printf "--adoption-grace-s=%d" (int $metadata.adoptionGraceS) | quote }}
- {{ printf "--waiting-bytes=%dMiB" (int $metadata.waitingMiB) | quote }}
- {{ printf "--unfinished-bytes=%dMiB" (int $metadata.unfinishedMiB) | quote }}
{{ include "cosco.tlsOptions" . | trim }}
{{- if not .Values.insecure }}
{{- if .Values.tokens.secret }}
- --tokens=/etc/cosco/tokens/tokens
{{- end }}
{{- if .Values.jwt.jwks }}
- {{ printf "--jwks=%s" .Values.jwt.jwks | quote }}
- {{ printf "--jwt-issuer=%s" .Values.jwt.issuer | quote }}
- {{ printf "--jwt-audience=%s" .Values.jwt.audience | quote }}
{{- end }}
{{- end }}
{{ include "cosco.logOptions" . }}
{{- $given := include "cosco.givenOfBoth" . | fromYaml }}
{{- $given = merge $given (dict "http" "metadata.httpPort" "http-host" "metadata.httpHosts" "store" "metadata.volume" "adoption-grace-s" "metadata.adoptionGraceS") }}
{{- $given = merge $given (dict "waiting-bytes" "metadata.waitingMiB" "unfinished-bytes" "metadata.unfinishedMiB") }}
{{- $given = merge $given (dict "tokens" "tokens.secret" "jwks" "jwt.jwks" "jwt-issuer" "jwt.issuer" "jwt-audience" "jwt.audience") }}
{{- include "cosco.options" (dict "service" "metadata" "options" $metadata.options "given" $given) }}
{{- end }}

{{- define "cosco.daemonOptions" -}}
{{- $daemons := .Values.daemons -}}
{{- $host := $daemons.metricsReachable | ternary .Values.listenHost "127.0.0.1" -}}
- {{ printf "--listen=%s:%d" .Values.listenHost (int $daemons.port) | quote }}
- {{ printf "--advertise=%s:%d" (include "cosco.daemonHost" .) (int $daemons.port) | quote }}
- {{ printf "--metrics=%s" ($daemons.metricsPort | int | eq 0 | ternary "" (printf "%s:%d" $host (int $daemons.metricsPort))) | quote }}
- {{ printf "--metadata=%s:%d" (include "cosco.metadataHost" .) (int .Values.metadata.port) | quote }}
# Copies go to different nodes, whatever pods are on one.
- --host-id=$(NODE_NAME)
# Not an error: it waits for the metadata service, for a day.
- --register-timeout-s=86400
- {{ printf "--store=%s" (include "cosco.storeUrl" .) | quote }}
- {{ printf "--processes=%d" (int $daemons.processes) | quote }}
- {{ printf "--memory=%dMiB" (int $daemons.memoryMiB) | quote }}
- {{ printf "--inflight-bytes=%dMiB" (int $daemons.inflightMiB) | quote }}
- {{ printf "--unfinished-bytes=%dMiB" (int $daemons.unfinishedMiB) | quote }}
- {{ printf "--full-store-wait-s=%d" (int $daemons.fullStoreWaitS) | quote }}
{{ include "cosco.tlsOptions" . | trim }}
{{- if and $daemons.metricsReachable (not .Values.insecure) }}
# Rows stay behind TLS: of a daemon that has it, this opens metrics alone.
- --insecure
{{- end }}
{{ include "cosco.logOptions" . }}
{{- $given := include "cosco.givenOfBoth" . | fromYaml }}
{{- $given = merge $given (dict "advertise" "daemons.advertiseHost" "metrics" "daemons.metricsPort" "metadata" "metadata.port") }}
{{- $given = merge $given (dict "host-id" "nothing: it is the name of the node" "register-timeout-s" "nothing: it waits for a day") }}
{{- $given = merge $given (dict "store" "daemons.store.url" "processes" "daemons.processes" "memory" "daemons.memoryMiB") }}
{{- $given = merge $given (dict "inflight-bytes" "daemons.inflightMiB" "unfinished-bytes" "daemons.unfinishedMiB") }}
{{- $given = merge $given (dict "full-store-wait-s" "daemons.fullStoreWaitS") }}
{{- include "cosco.options" (dict "service" "daemons" "options" $daemons.options "given" $given) }}
{{- end }}
