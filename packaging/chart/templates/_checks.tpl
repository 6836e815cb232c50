{{/* Values that are good each by itself, and not together. */}}
{{- define "cosco.checks" -}}
{{- $daemons := .Values.daemons -}}
{{- $metadata := .Values.metadata -}}
{{- $volume := $daemons.store.volume -}}
{{- if not .Values.insecure }}
{{- if not (and .Values.tls.metadataSecret .Values.tls.daemonSecret) }}
{{- fail "tls.metadataSecret and tls.daemonSecret: name Secrets with tls.crt, tls.key and ca.crt, or set insecure: true in a network that you trust" }}
{{- end }}
{{- if not (or .Values.tokens.secret .Values.jwt.jwks) }}
{{- fail "tokens.secret is empty, and so is jwt.jwks: name one of them, or set insecure: true in a network that you trust" }}
{{- end }}
{{- if and .Values.jwt.jwks (not (and .Values.jwt.issuer .Values.jwt.audience)) }}
{{- fail "jwt.jwks is given: jwt.issuer and jwt.audience must say whose JWTs, and for whom" }}
{{- end }}
{{- if and $metadata.httpReachable (ne .Values.tls.clientAuth "optional") }}
{{- fail "metadata.httpReachable: the node, which asks for its health, has no certificate; set tls.clientAuth: optional, or leave HTTP to the pod" }}
{{- end }}
{{- if and (eq (include "cosco.daemonHost" .) "$(POD_IP)") }}
{{- fail "daemons.kind DaemonSet with TLS: a pod's address is in no certificate; set daemons.hostNetwork: true, with certificates for the names of nodes, or daemons.advertiseHost" }}
{{- end }}
{{- end }}
{{- if and $metadata.httpReachable (eq (int $metadata.httpPort) 0) }}
{{- fail "metadata.httpReachable is true, and metadata.httpPort is 0, which serves none" }}
{{- end }}
{{- if and $daemons.metricsReachable (eq (int $daemons.metricsPort) 0) }}
{{- fail "daemons.metricsReachable is true, and daemons.metricsPort is 0, which serves none" }}
{{- end }}
{{- if and (ge (int $daemons.metricsPort) (int $daemons.port)) (lt (int $daemons.metricsPort) (add $daemons.port $daemons.processes | int)) }}
{{- fail "daemons.metricsPort is one of the ports of daemons.processes, which count up from daemons.port" }}
{{- end }}
{{- if lt (div (int $daemons.memoryMiB) (int $daemons.processes)) 16 }}
{{- fail (printf "daemons.memoryMiB is %d, it must be at least 16 for each of daemons.processes, which is %d" (int $daemons.memoryMiB) (int $daemons.processes)) }}
{{- end }}
{{- if and (eq $volume.kind "claim") (ne $daemons.kind "StatefulSet") }}
{{- fail "daemons.store.volume.kind claim is for daemons.kind StatefulSet: a DaemonSet has hostPath, emptyDir, existingClaim or none" }}
{{- end }}
{{- if and (eq $volume.kind "existingClaim") (not $volume.claimName) }}
{{- fail "daemons.store.volume.claimName: name the claim of kind existingClaim" }}
{{- end }}
{{- if and (eq $volume.kind "hostPath") (not $volume.hostPath) }}
{{- fail "daemons.store.volume.hostPath: name a directory that user 65532 owns on each node" }}
{{- end }}
{{- if and (eq $volume.kind "none") (contains "file:" (include "cosco.storeUrl" .)) }}
{{- fail "daemons.store.url is a file:// store, and daemons.store.volume.kind is none: its directory would be read-only" }}
{{- end }}
{{- if and (ne $volume.kind "none") (not (contains "file:" (include "cosco.storeUrl" .))) }}
{{- fail "daemons.store.url is no file:// store, and needs no volume: set daemons.store.volume.kind: none" }}
{{- end }}
{{- if and .Values.monitoring.serviceMonitor (not (and $metadata.httpReachable $daemons.metricsReachable)) }}
{{- fail "monitoring.serviceMonitor needs metadata.httpReachable and daemons.metricsReachable" }}
{{- end }}
{{- end }}
