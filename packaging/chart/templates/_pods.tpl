{{/* What is alike in the pods of both services. */}}
{{- define "cosco.podSpec" -}}
serviceAccountName: {{ include "cosco.name" . }}
automountServiceAccountToken: false
# Else Services of the namespace become variables, COSCO_… among them.
enableServiceLinks: false
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ . | quote }}
{{- end }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  # Not at each start: a database that is for its owner alone stays so, and large volumes take no time.
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- end }}

{{/* What arguments of a daemon may name as $(…). */}}
{{- define "cosco.podVariables" -}}
- name: NODE_NAME
  valueFrom: {fieldRef: {fieldPath: spec.nodeName}}
- name: POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: POD_IP
  valueFrom: {fieldRef: {fieldPath: status.podIP}}
{{- end }}

{{- define "cosco.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* Of one service: its nodes. */}}
{{- define "cosco.nodes" -}}
{{- with .nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- end }}

{{- define "cosco.mounts" -}}
- name: tmp
  mountPath: /tmp
{{- if not .Values.insecure }}
# Whole folders, so that what is renewed in a Secret is seen without a restart.
- name: tls
  mountPath: /etc/cosco/tls
  readOnly: true
{{- end }}
{{- end }}

{{- define "cosco.secretVolume" -}}
- name: {{ .name }}
  secret:
    secretName: {{ .secret | quote }}
    # Of the group of the pod, as fsGroup says.
    defaultMode: 0440
{{- with .items }}
    items: {{- toYaml . | nindent 6 }}
{{- end }}
{{- end }}

{{/*
Probes of a service. http: the port of health, 0 if there is none; reachable: whether the node reaches
it; scheme; ports: how many of them there are; port: that of its calls; plain: these are without TLS.
*/}}
{{- define "cosco.probe" -}}
{{- if eq (int .http) 0 }}
{{- if and .plain (eq .path "/readyz") }}
grpc:
  port: {{ int .port }}
{{- else }}
tcpSocket:
  port: {{ int .port }}
{{- end }}
{{- else if and .reachable (eq (int .ports) 1) }}
httpGet:
  path: {{ .path }}
  port: {{ int .http }}
  scheme: {{ .scheme }}
{{- else }}
# On the loopback, which the node does not reach; and of each process.
exec:
  command:
    - python3
    - -ISc
    - |
      import http.client, sys
      path, first, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
      for port in range(first, first + count):
          service = http.client.HTTPConnection("127.0.0.1", port, timeout=6)
          service.request("GET", path)
          answer = service.getresponse()
          if answer.status != 200:
              sys.exit(answer.read().decode())
    - {{ .path }}
    - {{ int .http | quote }}
    - {{ int .ports | quote }}
{{- end }}
periodSeconds: 10
timeoutSeconds: 10
{{- end }}

{{- define "cosco.resources" -}}
requests:
  cpu: {{ .cpu | quote }}
  memory: {{ printf "%dMi" (int .memoryMiB) }}
limits:
  # No limit of processors: who is held back misses heartbeats, and counts as dead.
  memory: {{ printf "%dMi" (int .memoryMiB) }}
{{- end }}

{{/* What a daemon's pod may have: --memory, and what each process needs beside it. */}}
{{- define "cosco.daemonLimitMiB" -}}
{{- $daemons := .Values.daemons -}}
{{- $moves := contains "flash=" (include "cosco.storeUrl" .) | ternary 128 0 -}}
{{- $each := add $daemons.overheadMiB (mul 2 (int $daemons.inflightMiB)) $daemons.unfinishedMiB $moves -}}
{{ add $daemons.memoryMiB (mul (int $daemons.processes) $each) }}
{{- end }}

{{- define "cosco.metadataLimitMiB" -}}
{{- with .Values.metadata -}}
{{ add .stateMiB .waitingMiB .unfinishedMiB }}
{{- end -}}
{{- end }}

{{/*
How long a daemon may take to end: to store what is in memory it has --full-store-wait-s and 30 s more,
then 17 s for what is under way and for what it was told to delete, and servesOnS beyond that.
*/}}
{{- define "cosco.daemonGraceS" -}}
{{ add .Values.daemons.fullStoreWaitS 50 .Values.daemons.servesOnS }}
{{- end }}
