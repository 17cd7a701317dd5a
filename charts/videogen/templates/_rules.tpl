{{/* The operator's rights, in four parts by where they must be granted. No wildcard, no Secrets, no exec. */}}

{{/* In every watched namespace. */}}
{{- define "videogen.namespacedRules" -}}
# What users write: followed, and read again when a status was written in between.
- apiGroups: [videogen.pib.gov.in]
  resources: [trainingruns, finetunecycles, modelreleases]
  verbs: [get, list, watch]
- apiGroups: [videogen.pib.gov.in]
  resources: [trainingruns/status, finetunecycles/status, modelreleases/status]
  verbs: [patch]
# A run's Release phase makes a ModelRelease.
- apiGroups: [videogen.pib.gov.in]
  resources: [modelreleases]
  verbs: [create]
# A scheduled time of a cycle makes a run; runs beyond the cycle's history limits are deleted, and one that it replaces.
- apiGroups: [videogen.pib.gov.in]
  resources: [trainingruns]
  verbs: [create, delete]
# An attempt: its job is made once and deleted to stop it; its ConfigMap is made, never read, and goes with the run.
- apiGroups: [kubeflow.org]
  resources: [pytorchjobs]
  verbs: [get, list, watch, create, delete]
- apiGroups: [""]
  resources: [configmaps]
  verbs: [create]
# What a job in a queue waits for, where Kueue is installed.
- apiGroups: [kueue.x-k8s.io]
  resources: [workloads]
  verbs: [list, watch]
# A release's children: applied, and deleted when its pods shall not run any more. An apply that makes the object needs create, too.
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch, delete]
# Which pods the Deployments have made: anybody may write their labels.
- apiGroups: [apps]
  resources: [replicasets]
  verbs: [list, watch]
- apiGroups: [""]
  resources: [services]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
# Who may connect to the pods of an attempt or a release: applied before them, deleted after them.
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, watch, create, patch, delete]
# A service's route: applied; it goes with the releases that own it.
- apiGroups: [gateway.networking.k8s.io]
  resources: [httproutes]
  verbs: [get, list, watch, create, patch]
- apiGroups: [gateway.envoyproxy.io]
  resources: [backendtrafficpolicies, httproutefilters]
  verbs: [get, list, watch, create, patch]
# Why a pod does not start or has ended, whether the storage exists.
- apiGroups: [""]
  resources: [pods, persistentvolumeclaims]
  verbs: [list, watch]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create]
{{- if .Values.rbac.openshift }}
# Never asked for: an admission that enforces permissions on owner references, as OpenShift's does, demands the first of whoever
# makes a child that blocks its owner's deletion, and the others of whoever changes the owners of an object.
- apiGroups: [videogen.pib.gov.in]
  resources: [trainingruns/finalizers, modelreleases/finalizers]
  verbs: [update]
- apiGroups: [gateway.networking.k8s.io]
  resources: [httproutes]
  verbs: [delete]
- apiGroups: [gateway.envoyproxy.io]
  resources: [backendtrafficpolicies, httproutefilters]
  verbs: [delete]
{{- end }}
{{- end -}}

{{/* In the Gateway's namespace: whether there is a gateway. */}}
{{- define "videogen.gatewayRules" -}}
- apiGroups: [gateway.networking.k8s.io]
  resources: [gateways]
  verbs: [list, watch]
{{- end -}}

{{/* Cluster-wide, because these have no namespace. */}}
{{- define "videogen.clusterRules" -}}
# Whether any node has the GPUs, CPUs and memory that are asked for.
- apiGroups: [""]
  resources: [nodes]
  verbs: [list, watch]
# When a kind appears that was not there, for example because the training-operator was installed later.
- apiGroups: [apiextensions.k8s.io]
  resources: [customresourcedefinitions]
  verbs: [list, watch]
# Who reports progress.
- apiGroups: [authentication.k8s.io]
  resources: [tokenreviews]
  verbs: [create]
{{- if .Values.watchNamespaces }}
# Without their list kopf watches none of the namespaces that it is told to watch.
- apiGroups: [""]
  resources: [namespaces]
  verbs: [list, watch]
{{- end }}
{{- end -}}

{{/* In the operator's own namespace: leadership, and the way to whoever leads. */}}
{{- define "videogen.leaseRules" -}}
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  resourceNames: [{{ include "videogen.operatorName" . }}]
  verbs: [get, update]
# A request to create an object has no name that a rule could compare.
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [create]
# Applied by the leader, so that the inbox's Service leads to it. An apply that makes the object needs create, and names it.
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  resourceNames: [{{ include "videogen.operatorName" . }}-leader]
  verbs: [create, patch]
{{- if .Values.rbac.openshift }}
# OpenShift's RestrictedEndpointsAdmission demands it of whoever writes the address of a pod.
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices/restricted]
  verbs: [create]
{{- end }}
{{- end -}}

{{/* A Role and its binding: (dict "context" $ "name" ... "namespace" ... "rules" "name of a template above"). */}}
{{- define "videogen.role" }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: {{ .name }}
  namespace: {{ .namespace }}
  labels:
    {{- include "videogen.labels" .context | nindent 4 }}
rules:
  {{- include .rules .context | nindent 2 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: {{ .name }}
  namespace: {{ .namespace }}
  labels:
    {{- include "videogen.labels" .context | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: Role
  name: {{ .name }}
subjects:
- kind: ServiceAccount
  name: {{ include "videogen.serviceAccountName" .context }}
  namespace: {{ .context.Release.Namespace }}
{{- end }}
