{{- define "pyrograph.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 40 | trimSuffix "-" }}
{{- end }}

{{/* Prefix of every object; short enough for every suffix. */}}
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

{{/* The Secret that pods take variables from; empty if there is none. */}}
{{- define "pyrograph.secret" -}}
{{- .Values.secret.existingSecret | default (empty .Values.secret.data | ternary "" (include "pyrograph.fullname" .)) }}
{{- end }}

{{/* Non-empty if the pods of the release find one another. */}}
{{- define "pyrograph.isCluster" -}}
{{- if ne .Values.config.storage.backend "filesystem" }}yes{{ end }}
{{- end }}

{{/* The role that takes profiles, and the one that answers. */}}
{{- define "pyrograph.writer" -}}
{{- eq .Values.mode "single" | ternary (include "pyrograph.fullname" .) (printf "%s-distributor" (include "pyrograph.fullname" .)) }}
{{- end }}
{{- define "pyrograph.reader" -}}
{{- eq .Values.mode "single" | ternary (include "pyrograph.fullname" .) (printf "%s-querier" (include "pyrograph.fullname" .)) }}
{{- end }}

{{/* Everything else is answered by the reader. */}}
{{- define "pyrograph.writePaths" -}}
[/ingest, /pyroscope/ingest, /push.v1.PusherService]
{{- end }}
