{{/* The prefix of all names: the release, and the chart unless the release is named after it. */}}
{{- define "strata.name" -}}
{{- $name := .Release.Name }}
{{- if not (contains "strata" $name) }}{{ $name = printf "%s-strata" $name }}{{ end }}
{{- $name | trunc 50 | trimSuffix "-" }}
{{- end }}

{{/* A value as a quoted text. Helm reads numbers as floats, which it would write as 5e+07. */}}
{{- define "strata.text" -}}
{{- if and (kindIs "float64" .) (eq (floor .) .) }}{{ int64 . | toString | quote }}{{ else }}{{ toString . | quote }}{{ end }}
{{- end }}

{{- define "strata.selector" -}}
app.kubernetes.io/name: strata
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "strata.labels" -}}
{{ include "strata.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{/* An image: dict "root" $ "image" "api". */}}
{{- define "strata.image" -}}
{{- with .root.Values.image.registry }}{{ trimSuffix "/" . }}/{{ end }}strata-{{ .image }}:{{ .root.Values.image.tag | default .root.Chart.AppVersion }}
{{- end }}

{{- define "strata.keySecret" -}}
{{ .Values.apiKey.existingSecret | default (printf "%s-api-key" (include "strata.name" .)) }}
{{- end }}

{{- define "strata.redisSecret" -}}
{{- if .Values.redis.enabled }}{{ include "strata.name" . }}-redis
{{- else if .Values.redis.existingSecret }}{{ .Values.redis.existingSecret }}
{{- else if .Values.redis.url }}{{ include "strata.name" . }}-redis
{{- else }}{{ fail "redis.enabled is false: set redis.url or redis.existingSecret" }}
{{- end }}
{{- end }}

{{/* What all pods have. */}}
{{- define "strata.pod" -}}
enableServiceLinks: false
automountServiceAccountToken: false
terminationGracePeriodSeconds: 30 # a worker finishes or releases its chunks within 10 s
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- end }}

{{/* What all containers with Strata have: variables, rights, mounts. dict "root" $ "settings" {…} "models" true|false, and
     "key" true for the process that checks the API key. */}}
{{- define "strata.container" -}}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
envFrom:
  - configMapRef: {name: {{ include "strata.name" .root }}}
  {{- range .root.Values.secretSettings }}
  - secretRef: {name: {{ . }}}
  {{- end }}
env:
  - name: REDIS_URL
    valueFrom: {secretKeyRef: {name: {{ include "strata.redisSecret" .root }}, key: url}}
  {{- if .key }}
  - name: STRATA_API_KEY
    valueFrom: {secretKeyRef: {name: {{ include "strata.keySecret" .root }}, key: api-key}}
  {{- end }}
  - {name: HOME, value: /tmp} # for caches of libraries
  {{- range $name, $value := .settings }}
  - name: {{ $name }}
    value: {{ include "strata.text" $value }}
  {{- end }}
volumeMounts:
  - {name: scratch, mountPath: /tmp, subPath: tmp}
  - {name: scratch, mountPath: /var/lib/strata, subPath: data}
  {{- if not .root.Values.store.uri }}
  - {name: store, mountPath: /var/lib/strata/store}
  {{- end }}
  {{- if .models }}
  - {name: models, mountPath: /var/lib/strata/models}
  {{- end }}
  {{- if .root.Values.shards.existingClaim }}
  - {name: shards, mountPath: /shards, readOnly: true}
  {{- end }}
  {{- if .root.Values.secretFiles }}
  - {name: secrets, mountPath: /secrets, readOnly: true}
  {{- end }}
  {{- range $folder, $map := .root.Values.configMaps }}
  {{- if $map }}
  - {name: {{ $folder }}, mountPath: /{{ $folder }}, readOnly: true}
  {{- end }}
  {{- end }}
{{- end }}

{{/* The volumes of these mounts: dict "root" $ "models" true|false. */}}
{{- define "strata.volumes" -}}
volumes:
  - name: scratch
    emptyDir: {}
  {{- if not .root.Values.store.uri }}
  - name: store
    persistentVolumeClaim: {claimName: {{ .root.Values.store.existingClaim | default (printf "%s-store" (include "strata.name" .root)) }}}
  {{- end }}
  {{- if .models }}
  - name: models
    persistentVolumeClaim: {claimName: {{ .root.Values.models.existingClaim | default (printf "%s-models" (include "strata.name" .root)) }}}
  {{- end }}
  {{- with .root.Values.shards.existingClaim }}
  - name: shards
    persistentVolumeClaim: {claimName: {{ . }}, readOnly: true}
  {{- end }}
  {{- with .root.Values.secretFiles }}
  - name: secrets
    secret: {secretName: {{ . }}}
  {{- end }}
  {{- range $folder, $map := .root.Values.configMaps }}
  {{- with $map }}
  - name: {{ $folder }}
    configMap: {name: {{ . }}}
  {{- end }}
  {{- end }}
{{- end }}

{{- define "strata.placement" -}}
{{- range $name := list "nodeSelector" "tolerations" "affinity" }}
{{- with index $.place $name }}
{{ $name }}:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- end }}
