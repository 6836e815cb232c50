{{- define "cosco.name" -}}
{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "cosco.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end }}

{{/* What chooses pods of one kind; `component` is also the job of Prometheus that scrapes them. */}}
{{- define "cosco.selector" -}}
app.kubernetes.io/name: {{ .root.Chart.Name | quote }}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .component | quote }}
{{- end }}

{{- define "cosco.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ $image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end }}

{{- define "cosco.metadataHost" -}}
{{ include "cosco.name" . }}-metadata.{{ .Release.Namespace }}.svc
{{- end }}

{{/* The host by which others reach a daemon. */}}
{{- define "cosco.daemonHost" -}}
{{- $daemons := .Values.daemons -}}
{{- if $daemons.advertiseHost -}}
{{ $daemons.advertiseHost }}
{{- else if $daemons.hostNetwork -}}
$(NODE_NAME)
{{- else if eq $daemons.kind "StatefulSet" -}}
$(POD_NAME).{{ include "cosco.name" . }}-daemons.{{ .Release.Namespace }}.svc
{{- else -}}
$(POD_IP)
{{- end -}}
{{- end }}

{{- define "cosco.storeUrl" -}}
{{ .Values.daemons.store.url | default "file:///var/lib/cosco/rows" }}
{{- end }}
