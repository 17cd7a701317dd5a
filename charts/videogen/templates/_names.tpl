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

{{/* The Secret with the inbox's certificate and key, and the ConfigMap with the authority that it is verified by. */}}
{{- define "videogen.inboxSecret" -}}
{{ include "videogen.name" . }}-inbox-tls
{{- end -}}

{{- define "videogen.inboxAuthority" -}}
{{ include "videogen.name" . }}-inbox-ca
{{- end -}}

{{/* The Secret with the keys that seal records of computed phases. */}}
{{- define "videogen.recordKeys" -}}
{{ include "videogen.name" . }}-record-keys
{{- end -}}

{{/* Whether the chart makes the inbox's certificate itself. */}}
{{- define "videogen.makesCertificate" -}}
{{- if and .Values.inbox.tls.enabled (not .Values.inbox.tls.certManager.enabled) }}true{{ end -}}
{{- end -}}

{{/* The names and addresses by which the inbox is reached, as a JSON list. */}}
{{- define "videogen.inboxNames" -}}
{{- $service := include "videogen.operatorName" . }}
{{- $inNamespace := printf "%s.%s" $service .Release.Namespace }}
{{- toJson (concat (list $service $inNamespace (printf "%s.svc" $inNamespace) (printf "%s.svc.cluster.local" $inNamespace)) .Values.inbox.tls.names) }}
{{- end -}}

{{- define "videogen.gatewayNamespace" -}}
{{- default .Release.Namespace .Values.gateway.namespace -}}
{{- end -}}
