{{/* A ValidatingAdmissionPolicy and its binding: (dict "context" $ "name" ... "spec" "a YAML text: matchConstraints, variables, validations"). */}}
{{- define "videogen.admissionPolicy" }}
{{- $name := printf "%s-%s-%s" .context.Release.Namespace (include "videogen.operatorName" .context) .name }}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata:
  name: {{ $name }}
  labels:
    {{- include "videogen.labels" .context | nindent 4 }}
spec:
  failurePolicy: Fail
  {{- .spec | nindent 2 }}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata:
  name: {{ $name }}
  labels:
    {{- include "videogen.labels" .context | nindent 4 }}
spec:
  policyName: {{ $name }}
  validationActions: [Deny]
{{- end }}

{{/* For the operator's own requests alone. */}}
{{- define "videogen.madeByTheOperator" -}}
matchConditions:
- name: made-by-the-operator
  expression: request.userInfo.username == "system:serviceaccount:{{ .Release.Namespace }}:{{ include "videogen.serviceAccountName" . }}"
{{- end -}}

{{/* One rule about these resources of an API group, of any version: (dict "group" ... "resources" (list ...)). */}}
{{- define "videogen.matching" -}}
- apiGroups: [{{ .group | quote }}]
  apiVersions: ["*"]
  resources: {{ toJson .resources }}
  operations: {{ toJson (default (list "CREATE" "UPDATE") .operations) }}
{{- end -}}

{{/* A regular expression of the images that the operator's pods may run: these repositories, with a tag, a digest, or both. */}}
{{- define "videogen.allowedImages" -}}
{{- $quoted := list }}
{{- range concat (list .Values.trainer.image.repository .Values.serving.image.repository) .Values.admissionPolicy.imageRepositories | uniq }}
{{- $quoted = append $quoted (regexQuoteMeta .) }}
{{- end -}}
^(?:{{ join "|" $quoted }})(?::[^/@]+)?(?:@sha256:[0-9a-f]{64})?$
{{- end -}}

{{/* Environment variables of trainer and server, as a CEL list. DEVELOPMENT lets the server start a Triton with known holes. */}}
{{- define "videogen.allowedVariables" -}}
['OMP_NUM_THREADS', 'HOME', 'RELEASE', 'BUNDLE_PATH', 'BUNDLE_DIGEST', 'SAMPLING_STEPS', 'MAXIMUM_STEPS', 'TIMEOUT_SECONDS'
{{- if .Values.serving.development }}, 'DEVELOPMENT'{{ end }}]
{{- end -}}

{{/* What holds for the pods of Deployments and PyTorchJobs. One rule is one block; `variables.templates` are their pod templates. */}}
{{- define "videogen.podRules" -}}
# Our software and no other, whoever's registry it comes from.
- expression: >-
    variables.containers.all(each, each.all(c, c.image.matches(r'{{ include "videogen.allowedImages" . }}')))
  message: the image of a container is not of a repository that the chart names (trainer.image, serving.image, admissionPolicy.imageRepositories)
  messageExpression: >-
    'image ' + variables.containers.map(each, each.filter(c, !c.image.matches(r'{{ include "videogen.allowedImages" . }}'))).filter(each, each.size() > 0)[0][0].image +
    ' is of no repository that the chart names (trainer.image, serving.image, admissionPolicy.imageRepositories)'
# The image's own program: no shell, no script.
- expression: >-
    variables.containers.all(each, each.all(c, c.?command.orValue([]) in [[], ['python3', '-m', 'videogen_trainer']] && c.?args.orValue([]).size() == 0 &&
    !c.?lifecycle.?postStart.hasValue() && !c.?lifecycle.?preStop.?exec.hasValue() && !c.?livenessProbe.?exec.hasValue() &&
    !c.?readinessProbe.?exec.hasValue() && !c.?startupProbe.?exec.hasValue()))
  message: a container has a command that is not the image's own or python3 -m videogen_trainer
# And nothing that would make it another one: by PYTHONPATH or a file over one of the image's, a ConfigMap could become code.
- expression: >-
    variables.containers.all(each, each.all(c, c.?env.orValue([]).all(e,
    e.name in {{ include "videogen.allowedVariables" . }} || e.name.matches('^(VIDEOGEN|KUBEFLOW_TRAINER|MLFLOW_TRACKING)_'))))
  message: a container has an environment variable that is none of the trainer's and the server's
- expression: >-
    variables.containers.all(each, each.all(c, c.?volumeMounts.orValue([]).all(m, !m.?subPath.hasValue() && !m.?subPathExpr.hasValue() &&
    m.mountPath in ['/etc/videogen', '/storage', '/var/run/secrets/videogen', '/dev/shm', '/tmp'])))
  message: a container mounts a volume where neither trainer nor server has one
# No account, so no rights in the cluster.
- expression: >-
    variables.pods.all(p, p.?serviceAccountName.orValue('default') in ['', 'default'] &&
    p.?serviceAccount.orValue('default') in ['', 'default'] && p.?automountServiceAccountToken.orValue(true) == false)
  message: a pod must run as ServiceAccount default with automountServiceAccountToken false
# Its files: the job, the storage, scratch space, and the token that only the inbox accepts. No Secret, nothing of the node.
- expression: >-
    variables.volumes.all(each, each.all(v, v.?configMap.hasValue() || v.?persistentVolumeClaim.hasValue() || v.?emptyDir.hasValue() ||
    (v.?projected.hasValue() &&
    v.projected.?sources.orValue([]).all(s, s.?serviceAccountToken.?audience.orValue('') == 'videogen.pib.gov.in/progress'))))
  message: a volume is none of configMap, persistentVolumeClaim, emptyDir and a projected token for videogen.pib.gov.in/progress
# Of Secrets only MLflow's credentials, key by key.
- expression: >-
    variables.containers.all(each, each.all(c, c.?envFrom.orValue([]).size() == 0 && c.?env.orValue([]).all(e, !e.?valueFrom.?secretKeyRef.hasValue() ||
    e.valueFrom.secretKeyRef.key in ['MLFLOW_TRACKING_USERNAME', 'MLFLOW_TRACKING_PASSWORD', 'MLFLOW_TRACKING_TOKEN'])))
  message: a container takes a key of a Secret into its environment that is not MLFLOW_TRACKING_USERNAME, ..._PASSWORD or ..._TOKEN
# Nothing of the node.
- expression: >-
    variables.pods.all(p, !p.?hostNetwork.orValue(false) && !p.?hostPID.orValue(false) && !p.?hostIPC.orValue(false) &&
    p.?nodeName.orValue('') == '') && variables.containers.all(each, each.all(c, c.?ports.orValue([]).all(port, port.?hostPort.orValue(0) == 0)))
  message: a pod asks for hostNetwork, hostPID, hostIPC, a hostPort or a nodeName
# Pod Security restricted, also in namespaces that do not enforce it.
- expression: >-
    variables.pods.all(p, p.?securityContext.?runAsNonRoot.orValue(false) && p.?securityContext.?runAsUser.orValue(1) != 0 &&
    p.?securityContext.?seccompProfile.?type.orValue('') == 'RuntimeDefault') &&
    variables.containers.all(each, each.all(c, c.?securityContext.?allowPrivilegeEscalation.orValue(true) == false &&
    !c.?securityContext.?privileged.orValue(false) && c.?securityContext.?runAsNonRoot.orValue(true) &&
    c.?securityContext.?runAsUser.orValue(1) != 0 && !c.?securityContext.?seccompProfile.hasValue() &&
    c.?securityContext.?capabilities.?drop.orValue([]).exists(one, one == 'ALL') &&
    c.?securityContext.?capabilities.?add.orValue([]).size() == 0))
  message: a pod does not meet Pod Security restricted
# Nor any loosening that it would allow in part: none of our pods needs one.
- expression: >-
    variables.pods.all(p, p.?securityContext.?sysctls.orValue([]).size() == 0 && !p.?securityContext.?seLinuxOptions.hasValue() &&
    !p.?securityContext.?appArmorProfile.hasValue() && !p.?securityContext.?windowsOptions.hasValue()) &&
    variables.containers.all(each, each.all(c, !c.?securityContext.?procMount.hasValue() && !c.?securityContext.?seLinuxOptions.hasValue() &&
    !c.?securityContext.?appArmorProfile.hasValue() && !c.?securityContext.?windowsOptions.hasValue()))
  message: a pod sets sysctls, seLinuxOptions, appArmorProfile, windowsOptions or procMount
# Never before the cluster's own pods.
- expression: variables.pods.all(p, !p.?priorityClassName.orValue('').startsWith('system-'))
  message: a pod has a priorityClassName of Kubernetes' own (system-...)
# Its labels are ours alone, so that no Service or NetworkPolicy of somebody else's takes it for one of theirs.
- expression: >-
    variables.templates.all(t, t.?metadata.?labels[?'app.kubernetes.io/managed-by'].orValue('') == 'videogen-operator' &&
    t.metadata.labels.all(key, key == 'app.kubernetes.io/managed-by' || key.startsWith('videogen.pib.gov.in/')))
  message: the labels of a pod must be app.kubernetes.io/managed-by videogen-operator and others that begin with videogen.pib.gov.in/
# One of ours decides about it, and takes it along.
- expression: >-
    object.metadata.?ownerReferences.orValue([]).exists(o, o.?controller.orValue(false) &&
    o.apiVersion.startsWith('videogen.pib.gov.in/') && o.kind in ['TrainingRun', 'ModelRelease'])
  message: its controller must be a TrainingRun or a ModelRelease
{{- end -}}
