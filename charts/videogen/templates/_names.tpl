{{/* Names and labels of everything that the chart makes. */}}

{{- define "videogen.name" -}}
{{- default .Release.Name .Values.nameOverride | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "videogen.operatorName" -}}
{{ include "videogen.name" . }}-operator
{{- end -}}

{{- define "videogen.serviceAccountName" -}}
{{- default (include "videogen.operatorName" .) .Values.serviceAccount.name -}}
{{- end -}}

{{- define "videogen.selectorLabels" -}}
app.kubernetes.io/name: videogen-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "videogen.labels" -}}
{{ include "videogen.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: videogen
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* An image reference of `.image`; a digest wins over the tag, and the tag's default is the chart's appVersion. */}}
{{- define "videogen.image" -}}
{{- if .image.digest -}}
{{ .image.repository }}@{{ .image.digest }}
{{- else -}}
{{ .image.repository }}:{{ default .context.Chart.AppVersion .image.tag }}
{{- end -}}
{{- end -}}

{{- define "videogen.gatewayNamespace" -}}
{{- default .Release.Namespace .Values.gateway.namespace -}}
{{- end -}}
