{{/*
Who makes the pods that are believed. The operator knows trainers and servers by labels: what a trainer reports decides gates, a server gets
requests, and both are let through NetworkPolicies. Only a policy can keep others from writing these labels: an object does not record who made it.
*/}}

{{/* Where the operator works: the whole cluster, or these namespaces. Another operator may work in the others. */}}
{{- define "videogen.admission.watched" -}}
{{- with .Values.watchNamespaces -}}
namespaceSelector:
  matchExpressions:
  - {key: kubernetes.io/metadata.name, operator: In, values: {{ toJson . }}}
{{- end }}
{{- end -}}

{{/* The user is one of these. */}}
{{- define "videogen.admission.isOneOf" -}}
{{- $is := list }}
{{- range . }}
{{- $is = append $is (printf "request.userInfo.username == %s" (toJson .)) }}
{{- end -}}
({{ join " || " $is }})
{{- end -}}

{{/* The label k is one by which the operator knows or watches its pods. */}}
{{- define "videogen.admission.isOurs" -}}
(k.startsWith('videogen.pib.gov.in/') || k == 'app.kubernetes.io/managed-by')
{{- end -}}

{{/* Pods with training-operator's labels and without ours: its Services, by which a run's workers find each other, select by these alone. */}}
{{- define "videogen.admission.replicas" -}}
matchConstraints:
  {{- with include "videogen.admission.watched" .context }}
  {{- . | nindent 2 }}
  {{- end }}
  objectSelector:
    matchLabels: {training.kubeflow.org/operator-name: pytorchjob-controller}
  resourceRules:
  {{- include "videogen.matching" (dict "group" "" "resources" (list "pods" "pods/*")) | nindent 2 }}
  excludeResourceRules:
  {{- include "videogen.matching" (dict "group" "" "resources" (list "pods/binding")) | nindent 2 }}
validations:
- expression: >-
    {{ include "videogen.admission.isOneOf" .makers }} || (oldObject != null && ['operator-name', 'job-name', 'replica-type', 'replica-index'].all(name,
    object.metadata.?labels[?('training.kubeflow.org/' + name)] == oldObject.metadata.?labels[?('training.kubeflow.org/' + name)]))
  reason: Forbidden
  message: >-
    a pod with the label training.kubeflow.org/operator-name=pytorchjob-controller is made by {{ join " or " .makers }} alone, and its labels training.kubeflow.org/...
    stay; write a PyTorchJob that gets such pods
{{- end }}

{{/* Pods with a label: (dict "context" $ "label" ... "makers" (list of users) "owner" "kind of the controller" "of" "a TrainingRun"). */}}
{{- define "videogen.admission.pods" -}}
matchConstraints:
  {{- with include "videogen.admission.watched" .context }}
  {{- . | nindent 2 }}
  {{- end }}
  objectSelector:
    matchExpressions:
    - {key: {{ .label }}, operator: Exists}
  resourceRules:
  # A status may bring labels, too. About bindings see below.
  {{- include "videogen.matching" (dict "group" "" "resources" (list "pods" "pods/*")) | nindent 2 }}
  excludeResourceRules:
  {{- include "videogen.matching" (dict "group" "" "resources" (list "pods/binding")) | nindent 2 }}
variables:
- name: labels
  expression: object.metadata.?labels.orValue({})
- name: labelsBefore
  expression: "oldObject == null ? {} : oldObject.metadata.?labels.orValue({})"
validations:
# By the controller that makes them, for what it makes them of: an account may be that of several controllers.
- expression: >-
    oldObject != null || ({{ include "videogen.admission.isOneOf" .makers }} &&
    object.metadata.?ownerReferences.orValue([]).exists(o, o.?controller.orValue(false) && o.kind == '{{ .owner }}'))
  reason: Forbidden
  message: >-
    a pod with the label {{ .label }} is made by {{ join " or " .makers }} alone, for a {{ .owner }}; leave the label out, or write {{ .of }} that gets such pods
# No pod is relabelled into one of them, out of its NetworkPolicy, or into that of others.
- expression: >-
    oldObject == null || (
    variables.labels.all(k, !{{ include "videogen.admission.isOurs" . }} || variables.labelsBefore[?k] == optional.of(variables.labels[k])) &&
    variables.labelsBefore.all(k, !{{ include "videogen.admission.isOurs" . }} || k in variables.labels))
  reason: Forbidden
  message: a pod gets its labels videogen.pib.gov.in/... and app.kubernetes.io/managed-by when {{ join " or " .makers }} makes it, and then they stay; they cannot be added, changed or removed
# Nor its program: the kubelet would start another image in the same pod.
- expression: >-
    oldObject == null || request.resource.resource != 'pods' || (
    object.spec.containers.map(c, c.image) == oldObject.spec.containers.map(c, c.image) &&
    object.spec.?initContainers.orValue([]).map(c, c.image) == oldObject.spec.?initContainers.orValue([]).map(c, c.image))
  reason: Forbidden
  message: the image of a pod with the label {{ .label }} is the one that it was made with; delete the pod, and one with the chart's image takes its place
{{- end }}

{{/* A binding hands its labels to the pod that it binds, one alone suffices: no objectSelector tells which bindings concern pods of ours. */}}
{{- define "videogen.admission.bindings" -}}
matchConstraints:
  {{- with include "videogen.admission.watched" .context }}
  {{- . | nindent 2 }}
  {{- end }}
  resourceRules:
  {{- include "videogen.matching" (dict "group" "" "resources" (list "pods/binding" "bindings")) | nindent 2 }}
validations:
- expression: >-
    object.metadata.?labels.orValue({}).all(k, !{{ include "videogen.admission.isOurs" . }} && !k.startsWith('training.kubeflow.org/'))
  reason: Forbidden
  message: >-
    a Binding gives a pod no label videogen.pib.gov.in/..., app.kubernetes.io/managed-by or training.kubeflow.org/...; leave them out, the pod keeps those that it has
{{- end }}

{{/* What such pods are made of: (dict "context" $ "label" ... "group" ... "resource" ... "kind" ... "templates" "a CEL list" "makers" (list of users) "owner" "kind of its controller, or none" "of" "a TrainingRun"). */}}
{{- define "videogen.admission.makingPods" -}}
matchConstraints:
  {{- with include "videogen.admission.watched" .context }}
  {{- . | nindent 2 }}
  {{- end }}
  resourceRules:
  {{- include "videogen.matching" (dict "group" .group "resources" (list .resource)) | nindent 2 }}
variables:
- name: key
  expression: "'{{ .label }}'"
- name: templates
  expression: {{ .templates | quote }}
- name: templatesBefore
  expression: "oldObject == null ? [] : {{ .templates | replace "object." "oldObject." }}"
# The label's values, of the object and of the pods that it makes; where it is not there one that no label has, for it may be empty.
- name: values
  expression: "[object.metadata.?labels[?variables.key].orValue('!')] + variables.templates.map(t, t.?metadata.?labels[?variables.key].orValue('!'))"
- name: valuesBefore
  expression: >-
    oldObject == null ? ['!'] : [oldObject.metadata.?labels[?variables.key].orValue('!')] +
    variables.templatesBefore.map(t, t.?metadata.?labels[?variables.key].orValue('!'))
validations:
- expression: >-
    ({{ include "videogen.admission.isOneOf" .makers }}
    {{- with .owner }} && object.metadata.?ownerReferences.orValue([]).exists(o, o.?controller.orValue(false) && o.kind == '{{ . }}'){{ end }}) ||
    variables.values.all(v, v in variables.valuesBefore)
  reason: Forbidden
  message: >-
    a {{ .kind }} with the label {{ .label }}, of itself or of its pods, is made by {{ join " or " .makers }} alone; leave the label out, or write {{ .of }}
{{- end }}
