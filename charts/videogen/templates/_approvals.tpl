{{/* Who may approve what: annotations approve.videogen.pib.gov.in/<kind>.<team>: "<digest> <user name>" of a TrainingRun. One write gives one
approval, because an expression can pay for two questions to the authorizer. What stands in an object that is created counts for nobody, since
the digest has its UID. */}}
{{- define "videogen.admission.approvals" -}}
matchConstraints:
  resourceRules:
  {{- include "videogen.matching" (dict "group" "videogen.pib.gov.in" "resources" (list "trainingruns")) | nindent 2 }}
variables:
- name: prefix
  expression: "'approve.videogen.pib.gov.in/'"
- name: annotations
  expression: object.metadata.?annotations.orValue({})
- name: before
  expression: "oldObject == null ? {} : oldObject.metadata.?annotations.orValue({})"
- name: given
  expression: "variables.annotations.filter(k, k.startsWith(variables.prefix))"
# What this write gives or changes; what it leaves alone is not judged, and what it takes away gives nothing.
- name: changed
  expression: "oldObject == null ? [] : variables.given.filter(k, variables.before[?k] != optional.of(variables.annotations[k]))"
- name: words
  expression: "variables.changed.size() == 1 ? variables.changed[0].substring(variables.prefix.size()).split('.') : []"
- name: team
  expression: "variables.words.size() == 2 ? variables.words[1] : ''"
- name: value
  expression: "variables.changed.size() == 1 ? variables.annotations[variables.changed[0]] : ''"
validations:
- expression: variables.given.size() <= 16
  message: a TrainingRun has at most 16 annotations approve.videogen.pib.gov.in/...; remove those that are for nothing any more
- expression: variables.changed.size() <= 1
  message: one write gives one approval; annotate the run once for each
- expression: variables.changed.size() == 0 || variables.words.size() == 2
  message: an approval is the annotation approve.videogen.pib.gov.in/<kind>.<team>, for example approve.videogen.pib.gov.in/lambda.ml-lead
- expression: variables.changed.size() == 0 || variables.value.matches('^sha256:[0-9a-f]{64} .')
  message: >-
    the value of an approval is "<digest> <your user name>", with the digest in status.phases[].subject.digest and the name that
    kubectl auth whoami tells
# By the name that the API server knows, so nobody approves for somebody else.
- expression: >-
    variables.changed.size() == 0 || !variables.value.matches('^sha256:[0-9a-f]{64} .') || variables.value.substring(72) == request.userInfo.username
  reason: Forbidden
  message: an approval is given in one's own name
  messageExpression: >-
    'this approval is in the name of ' + variables.value.substring(72) + ', and ' + request.userInfo.username +
    ' writes it; give it in your own name, as kubectl auth whoami tells it'
- expression: >-
    variables.team == '' ||
    authorizer.group('videogen.pib.gov.in').resource('trainingruns').subresource('approvals').namespace(request.namespace).name(variables.team).check('approve').allowed()
  reason: Forbidden
  message: an approval needs the verb approve on trainingruns/approvals with the team as resourceName
  messageExpression: >-
    'an approval for team ' + variables.team + ' needs the verb approve on trainingruns/approvals of group videogen.pib.gov.in with the resourceName ' +
    variables.team + ' in namespace ' + request.namespace + ', which ' + request.userInfo.username +
    ' does not have; {{ include "videogen.howToGet" .context | replace (include "videogen.personRole" (dict "context" .context "role" "devops")) (include "videogen.personRole" (dict "context" .context "role" "ml-lead")) }}'
{{- end }}

{{/* RBAC rules for approvals: the names of teams. */}}
{{- define "videogen.approvalRules" }}
- apiGroups: [videogen.pib.gov.in]
  resources: [trainingruns/approvals]
  resourceNames: {{ toJson . }}
  verbs: [approve]
{{- end -}}
