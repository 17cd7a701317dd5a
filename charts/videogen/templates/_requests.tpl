{{/* The verbs of requests (annotation videogen.pib.gov.in/request: "<verb>@<id>") that each kind knows. A test compares them with the operator's. */}}
{{- define "videogen.requestVerbs" -}}
{"finetunecycles": ["run-now"],
 "modelreleases": ["abort", "hold", "promote", "quarantine", "resume", "retry", "withdraw"],
 "trainingruns": ["retry"]}
{{- end -}}

{{/* RBAC rules for requests: (dict of resource to verbs). The subresource exists in RBAC alone; nothing is served there. */}}
{{- define "videogen.requestRules" -}}
{{- range $resource, $verbs := . }}
- apiGroups: [videogen.pib.gov.in]
  resources: [{{ $resource }}/requests]
  verbs: {{ toJson (sortAlpha $verbs) }}
{{- end }}
{{- end -}}

{{/* Reading our kinds, for everybody who works with them. */}}
{{- define "videogen.readRules" -}}
- apiGroups: [videogen.pib.gov.in]
  resources: [trainingruns, finetunecycles, modelreleases]
  verbs: [get, list, watch]
- apiGroups: [videogen.pib.gov.in]
  resources: [trainingruns/status, finetunecycles/status, modelreleases/status, modelreleases/scale]
  verbs: [get]
{{- end -}}

{{/* The name of a ClusterRole for people: (dict "context" $ "role" "qa"). */}}
{{- define "videogen.personRole" -}}
{{ printf "%s-%s-%s" .context.Release.Namespace (include "videogen.name" .context) .role }}
{{- end -}}

{{/* How somebody gets a right, as the end of a refusal. */}}
{{- define "videogen.howToGet" -}}
whoever administers the namespace grants it by a Role
{{- if .Values.rbac.people }}, or by binding a ClusterRole that has it, for example {{ include "videogen.personRole" (dict "context" . "role" "devops") }}
{{- end -}}
{{- end -}}

{{/* Who may ask: (dict "context" $ "resource" "modelreleases" "verbs" (list ...)). An expression can pay for two questions to the authorizer. */}}
{{- define "videogen.admission.requests" -}}
{{- $check := printf "authorizer.group('videogen.pib.gov.in').resource('%s')" .resource }}
{{- $place := "namespace(request.namespace).name(object.metadata.?name.orValue(''))" -}}
matchConstraints:
  resourceRules:
  {{- include "videogen.matching" (dict "group" "videogen.pib.gov.in" "resources" (list .resource)) | nindent 2 }}
variables:
- name: key
  expression: "'videogen.pib.gov.in/request'"
- name: verbs
  expression: {{ toJson .verbs | replace "\"" "'" | quote }}
- name: annotations
  expression: object.metadata.?annotations.orValue({})
- name: annotationsBefore
  expression: "oldObject == null ? {} : oldObject.metadata.?annotations.orValue({})"
- name: asked
  expression: variables.annotations[?variables.key].orValue('')
- name: askedBefore
  expression: variables.annotationsBefore[?variables.key].orValue('')
# The operator reads 128 characters of a request and repeats them as its answer.
- name: isAnswered
  expression: >-
    oldObject == null || oldObject.?status.?lastHandledRequest.orValue('') ==
    (variables.askedBefore.size() > 128 ? variables.askedBefore.substring(0, 128) : variables.askedBefore)
# What is asked for by this write, and what was asked for and would be lost by it.
- name: verb
  expression: "variables.asked == variables.askedBefore ? '' : variables.asked.split('@')[0]"
- name: lost
  expression: "variables.asked == variables.askedBefore || variables.isAnswered ? '' : variables.askedBefore.split('@')[0]"
- name: asksOnly
  expression: >-
    oldObject == null || (object.spec == oldObject.spec &&
    object.metadata.?labels.orValue({}) == oldObject.metadata.?labels.orValue({}) &&
    object.metadata.?finalizers.orValue([]) == oldObject.metadata.?finalizers.orValue([]) &&
    object.metadata.?ownerReferences.orValue([]) == oldObject.metadata.?ownerReferences.orValue([]) &&
    variables.annotations.all(k, k == variables.key || k.startsWith('approve.videogen.pib.gov.in/') ||
    variables.annotationsBefore[?k] == optional.of(variables.annotations[k])) &&
    variables.annotationsBefore.all(k, k == variables.key || k in variables.annotations))
validations:
# Each verb is a right of its own. A word that is no verb is answered by the operator, which tells what is accepted.
- expression: >-
    !(variables.verb in variables.verbs) ||
    {{ $check }}.subresource('requests').{{ $place }}.check(variables.verb).allowed()
  reason: Forbidden
  message: a request in the annotation videogen.pib.gov.in/request needs the verb of its name on {{ .resource }}/requests
  messageExpression: >-
    'the request ' + variables.verb + ' needs the verb ' + variables.verb + ' on {{ .resource }}/requests of group videogen.pib.gov.in in namespace ' +
    request.namespace + ', which ' + request.userInfo.username + ' does not have; {{ include "videogen.howToGet" .context }}'
# Who may not ask for something may not take it back either, for example a rollback that the operator has not seen yet.
- expression: >-
    !(variables.lost in variables.verbs) ||
    {{ $check }}.subresource('requests').{{ $place }}.check(variables.lost).allowed()
  reason: Forbidden
  message: a request that is not answered yet is replaced or removed only with the verb of its name on {{ .resource }}/requests
  messageExpression: >-
    'this would take back a request ' + variables.lost + ' that is not answered yet, which needs the verb ' + variables.lost +
    ' on {{ .resource }}/requests of group videogen.pib.gov.in in namespace ' + request.namespace + ', which ' + request.userInfo.username +
    ' does not have; wait until status.lastHandledRequest repeats it, or else {{ include "videogen.howToGet" .context }}'
# An annotation is written by patch, which RBAC gives for the whole object: patch without update is the right to ask and nothing more, and,
# where the policy of approvals lets it, to approve. An approval is not removed by it.
- expression: >-
    variables.asksOnly || {{ $check }}.{{ $place }}.check('update').allowed()
  reason: Forbidden
  message: only the annotation videogen.pib.gov.in/request may be changed without the verb update on {{ .resource }}
  messageExpression: >-
    'a change of anything but the annotation videogen.pib.gov.in/request needs the verb update on {{ .resource }} in namespace ' +
    request.namespace + ', which ' + request.userInfo.username + ' does not have; {{ include "videogen.howToGet" .context }}'
{{- end }}

{{/* What serves, or stands by for what serves, is not deleted by a slip of the hand. */}}
{{- define "videogen.admission.serving" -}}
matchConstraints:
  resourceRules:
  {{- include "videogen.matching" (dict "group" "videogen.pib.gov.in" "resources" (list "modelreleases") "operations" (list "DELETE")) | nindent 2 }}
matchConditions:
# With one account for each controller, and with one for all of them.
- name: not-by-a-controller-of-kubernetes
  expression: >-
    !(request.userInfo.username in ['system:serviceaccount:kube-system:generic-garbage-collector',
    'system:serviceaccount:kube-system:namespace-controller', 'system:kube-controller-manager'])
- name: release-stays
  expression: "!has(oldObject.metadata.deletionTimestamp)"
variables:
# It takes everything along, also by somebody who deletes its objects first. A match condition would not know the namespace.
- name: namespaceGoes
  expression: has(namespaceObject.metadata.deletionTimestamp)
- name: state
  expression: oldObject.?status.?rollout.?state.orValue('')
- name: weight
  expression: oldObject.?status.?traffic.?weightPercent.orValue(0)
validations:
- expression: "variables.namespaceGoes || (!(variables.state in ['Canary', 'Held', 'Stable', 'Standby']) && variables.weight == 0)"
  reason: Forbidden
  message: a release that serves, or stands by, is not deleted; withdraw it first
  messageExpression: >-
    oldObject.metadata.name + ' is ' + variables.state + ' with ' + string(variables.weight) + ' % of the traffic of service ' + oldObject.spec.service +
    ' and is not deleted; roll out another release first and wait until this one is Superseded, or take it out of the service with kubectl -n ' +
    request.namespace + ' annotate modelrelease/' + oldObject.metadata.name +
    ' --overwrite videogen.pib.gov.in/request=withdraw@<id> (without another release the service then answers 503); a deletion of the namespace takes it along'
{{- end }}

{{/* A run of a cycle is the operator's to make: what it measures can take traffic from a release, and what it uses counts for the cycle. */}}
{{- define "videogen.admission.cycles" -}}
matchConstraints:
  resourceRules:
  {{- include "videogen.matching" (dict "group" "videogen.pib.gov.in" "resources" (list "trainingruns")) | nindent 2 }}
matchConditions:
- name: not-made-by-the-operator
  expression: '!(request.userInfo.username == "system:serviceaccount:{{ .Release.Namespace }}:{{ include "videogen.serviceAccountName" . }}")'
variables:
- name: labels
  expression: object.metadata.?labels.orValue({})
- name: labelsBefore
  expression: "oldObject == null ? {} : oldObject.metadata.?labels.orValue({})"
validations:
- expression: >-
    ['videogen.pib.gov.in/cycle', 'videogen.pib.gov.in/measures'].all(k,
    !(k in variables.labels) || variables.labelsBefore[?k] == optional.of(variables.labels[k]))
  reason: Forbidden
  message: >-
    the labels videogen.pib.gov.in/cycle and videogen.pib.gov.in/measures are the operator's, which makes the runs of cycles; leave them out, and ask a cycle for a
    run by the annotation videogen.pib.gov.in/request=run-now@<id>
{{- end }}
