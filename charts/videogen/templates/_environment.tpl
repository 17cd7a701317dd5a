{{/* The operator's settings: each field of operator/src/videogen_operator/settings.py that the chart decides. */}}
{{- define "videogen.environment" -}}
- name: VIDEOGEN_IDENTITY
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
- name: VIDEOGEN_OPERATOR_NAMESPACE
  value: {{ .Release.Namespace | quote }}
- name: VIDEOGEN_LEASE_NAME
  value: {{ include "videogen.operatorName" . | quote }}
- name: VIDEOGEN_LEASE_SECONDS
  value: {{ .Values.leaseSeconds | quote }}
- name: VIDEOGEN_NAMESPACES
  value: {{ join "," .Values.watchNamespaces | quote }}
- name: VIDEOGEN_TRAINER_IMAGE
  value: {{ include "videogen.image" (dict "image" .Values.trainer.image "context" .) | quote }}
- name: VIDEOGEN_SERVING_IMAGE
  value: {{ include "videogen.image" (dict "image" .Values.serving.image "context" .) | quote }}
- name: VIDEOGEN_IMAGE_PULL_POLICY
  value: {{ .Values.image.pullPolicy | quote }}
- name: VIDEOGEN_POD_USER
  value: {{ .Values.podUser | int | quote }}
- name: VIDEOGEN_PROGRESS_URL
  value: {{ printf "http://%s.%s:%d" (include "videogen.operatorName" .) .Release.Namespace (int .Values.service.inboxPort) | quote }}
- name: VIDEOGEN_GATEWAY_NAME
  value: {{ .Values.gateway.name | quote }}
- name: VIDEOGEN_GATEWAY_NAMESPACE
  value: {{ include "videogen.gatewayNamespace" . | quote }}
- name: VIDEOGEN_GATEWAY_SECTION
  value: {{ .Values.gateway.sectionName | quote }}
- name: VIDEOGEN_STICKY_USERS
  value: {{ .Values.gateway.stickyUsers | ternary "true" "" | quote }}
- name: VIDEOGEN_DOMAIN
  value: {{ .Values.domain | quote }}
- name: VIDEOGEN_PROMETHEUS_URL
  value: {{ .Values.prometheus.url | quote }}
- name: VIDEOGEN_INBOX_PORT
  value: {{ .Values.service.inboxPort | quote }}
- name: VIDEOGEN_METRICS_PORT
  value: {{ .Values.service.metricsPort | quote }}
{{- if .Values.alertWebhook.existingSecret }}
- name: VIDEOGEN_ALERT_TOKEN_FILES
  value: {{ include "videogen.alertTokenFiles" . | quote }}
{{- end }}
- name: VIDEOGEN_RESYNC_SECONDS
  value: {{ .Values.resyncSeconds | quote }}
- name: VIDEOGEN_CONCURRENCY
  value: {{ .Values.concurrency | quote }}
- name: VIDEOGEN_LOG_LEVEL
  value: {{ .Values.logLevel | upper | quote }}
{{- end -}}

{{- define "videogen.alertTokenFiles" -}}
{{- range $index, $key := .Values.alertWebhook.keys }}{{ if $index }},{{ end }}/etc/videogen/alert-webhook/{{ $key }}{{ end -}}
{{- end -}}
