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
- name: VIDEOGEN_SERVING_DEVELOPMENT
  value: {{ .Values.serving.development | ternary "true" "" | quote }}
- name: VIDEOGEN_IMAGE_PULL_POLICY
  value: {{ .Values.image.pullPolicy | quote }}
- name: VIDEOGEN_POD_USER
  value: {{ .Values.podUser | int | quote }}
- name: VIDEOGEN_IMAGE_PULL_SECRETS
  value: {{ toJson .Values.imagePullSecrets | quote }}
- name: VIDEOGEN_TRAINER_PLACEMENT
  value: {{ toJson .Values.trainer.placement | quote }}
- name: VIDEOGEN_NODES_ON_DEMAND
  value: {{ .Values.trainer.nodesOnDemand | ternary "true" "" | quote }}
- name: VIDEOGEN_SERVING_PLACEMENT
  value: {{ toJson .Values.serving.placement | quote }}
- name: VIDEOGEN_SCRATCH_SIZE
  value: {{ .Values.scratchSize | quote }}
- name: VIDEOGEN_TRACKING_HOSTS
  value: {{ join "," .Values.tracking.allowedHosts | quote }}
- name: VIDEOGEN_PROGRESS_URL
  value: {{ printf "%s://%s.%s:%d" (ternary "https" "http" .Values.inbox.tls.enabled) (include "videogen.operatorName" .) .Release.Namespace (int .Values.service.inboxPort) | quote }}
- name: VIDEOGEN_GATEWAY_NAME
  value: {{ .Values.gateway.name | quote }}
- name: VIDEOGEN_GATEWAY_NAMESPACE
  value: {{ include "videogen.gatewayNamespace" . | quote }}
- name: VIDEOGEN_GATEWAY_SECTION
  value: {{ .Values.gateway.sectionName | quote }}
- name: VIDEOGEN_GATEWAY_CONTROLLER
  value: {{ .Values.gateway.controllerName | quote }}
- name: VIDEOGEN_TRAFFIC_POLICY
  value: {{ .Values.gateway.trafficPolicy | ternary "true" "" | quote }}
- name: VIDEOGEN_REQUESTS_PER_MINUTE
  value: {{ .Values.gateway.requestsPerMinute | int | quote }}
- name: VIDEOGEN_NETWORK_POLICIES
  value: {{ .Values.networkPolicy.enabled | ternary "true" "" | quote }}
- name: VIDEOGEN_GATEWAY_PEERS
  value: {{ .Values.networkPolicy.gateway | toJson | quote }}
- name: VIDEOGEN_MONITORING_PEERS
  value: {{ .Values.networkPolicy.monitoring | toJson | quote }}
- name: VIDEOGEN_DOMAIN
  value: {{ .Values.domain | quote }}
- name: VIDEOGEN_HOSTNAME
  value: {{ .Values.hostname | quote }}
- name: VIDEOGEN_PROMETHEUS_URL
  value: {{ .Values.prometheus.url | quote }}
{{- with .Values.prometheus }}
{{- if and .existingSecret .tokenKey }}
- name: VIDEOGEN_PROMETHEUS_TOKEN_FILE
  value: /etc/videogen/prometheus/{{ .tokenKey }}
{{- end }}
{{- if and .existingSecret .caKey }}
- name: VIDEOGEN_PROMETHEUS_CA
  value: /etc/videogen/prometheus/{{ .caKey }}
{{- end }}
- name: VIDEOGEN_PROMETHEUS_HEADERS
  value: {{ toJson .headers | quote }}
{{- end }}
- name: VIDEOGEN_INBOX_PORT
  value: {{ .Values.service.inboxPort | quote }}
- name: VIDEOGEN_INBOX_SERVICE
  value: {{ include "videogen.operatorName" . | quote }}
- name: VIDEOGEN_POD_ADDRESS
  valueFrom:
    fieldRef:
      fieldPath: status.podIP
- name: VIDEOGEN_POD_UID
  valueFrom:
    fieldRef:
      fieldPath: metadata.uid
- name: VIDEOGEN_METRICS_PORT
  value: {{ .Values.service.metricsPort | quote }}
- name: VIDEOGEN_HEALTH_PORT
  value: {{ .Values.service.healthPort | quote }}
- name: VIDEOGEN_GATEWAY_METRICS_NAMESPACE
  value: {{ .Values.gateway.metricsNamespace | quote }}
- name: VIDEOGEN_ALERT_WINDOW_SECONDS
  value: {{ .Values.alerts.window | quote }}
{{- if .Values.alertWebhook.namespaceTokensSecret }}
- name: VIDEOGEN_ALERT_NAMESPACE_TOKENS
  value: /etc/videogen/namespace-tokens
{{- end }}
{{- if .Values.inbox.tls.enabled }}
- name: VIDEOGEN_INBOX_CERTIFICATE
  value: /etc/videogen/inbox/tls.crt
- name: VIDEOGEN_INBOX_KEY
  value: /etc/videogen/inbox/tls.key
- name: VIDEOGEN_INBOX_CA
  value: /etc/videogen/inbox/ca.crt
{{- end }}
{{- if .Values.reuse.enabled }}
- name: VIDEOGEN_RECORD_KEYS
  value: /etc/videogen/record-keys
{{- end }}
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
