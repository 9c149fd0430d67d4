{{- define "pyrograph.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 40 | trimSuffix "-" }}
{{- end }}

{{/* Name prefix of every object, short enough for every suffix. */}}
{{- define "pyrograph.fullname" -}}
{{- $name := include "pyrograph.name" . }}
{{- $full := contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) }}
{{- .Values.fullnameOverride | default $full | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "pyrograph.selector" -}}
app.kubernetes.io/name: {{ include "pyrograph.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "pyrograph.labels" -}}
{{ include "pyrograph.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "pyrograph.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (.Values.serviceAccount.create | ternary (include "pyrograph.fullname" .) "default") }}
{{- end }}

{{- define "pyrograph.image" -}}
{{- .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{/* Name of the Secret with environment variables of the pods; empty if there is none. */}}
{{- define "pyrograph.secret" -}}
{{- .Values.secret.existingSecret | default (empty .Values.secret.data | ternary "" (include "pyrograph.fullname" .)) }}
{{- end }}

{{/* Non-empty if the pods of the release form a cluster. */}}
{{- define "pyrograph.isCluster" -}}
{{- if ne .Values.config.storage.backend "filesystem" }}yes{{ end }}
{{- end }}

{{/* The role that accepts pushes, and the role that answers queries. */}}
{{- define "pyrograph.writer" -}}
{{- eq .Values.mode "single" | ternary (include "pyrograph.fullname" .) (printf "%s-distributor" (include "pyrograph.fullname" .)) }}
{{- end }}
{{- define "pyrograph.reader" -}}
{{- eq .Values.mode "single" | ternary (include "pyrograph.fullname" .) (printf "%s-querier" (include "pyrograph.fullname" .)) }}
{{- end }}

{{/* The paths of the writer; the reader serves all others. */}}
{{- define "pyrograph.writePaths" -}}
[/ingest, /pyroscope/ingest, /push.v1.PusherService]
{{- end }}
