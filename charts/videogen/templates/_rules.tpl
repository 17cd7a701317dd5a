{{/* The operator's rights, in three parts by where they must be granted. No wildcard, no Secrets, no exec. */}}

{{/* In every watched namespace. */}}
{{- define "videogen.namespacedRules" -}}
# What users write: followed, and read again when a status was written in between.
- apiGroups: [videogen.pib.gov.in]
  resources: [trainingruns, modelreleases]
  verbs: [get, list, watch]
- apiGroups: [videogen.pib.gov.in]
  resources: [trainingruns/status, modelreleases/status]
  verbs: [patch]
# Never asked for: clusters whose admission enforces permissions on owner references (OpenShift's do) demand it of whoever makes
# a child that blocks its owner's deletion.
- apiGroups: [videogen.pib.gov.in]
  resources: [trainingruns/finalizers, modelreleases/finalizers]
  verbs: [update]
# A run's Release phase makes a ModelRelease.
- apiGroups: [videogen.pib.gov.in]
  resources: [modelreleases]
  verbs: [create]
# An attempt: its job is made once and deleted to stop it, its ConfigMap goes with the job.
- apiGroups: [kubeflow.org]
  resources: [pytorchjobs]
  verbs: [get, list, watch, create, delete]
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, create]
# A release's children: applied, and deleted when its pods shall not run any more. An apply that makes the object needs create, too.
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [services]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
# A service's route: applied; it goes with the releases that own it. The same admission demands delete, because the owners change.
- apiGroups: [gateway.networking.k8s.io]
  resources: [httproutes]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [gateway.envoyproxy.io]
  resources: [backendtrafficpolicies]
  verbs: [get, list, watch, create, patch, delete]
# Why a pod does not start or has ended, whether the storage exists, whether there is a gateway.
- apiGroups: [""]
  resources: [pods, persistentvolumeclaims]
  verbs: [list, watch]
- apiGroups: [gateway.networking.k8s.io]
  resources: [gateways]
  verbs: [list, watch]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create]
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

{{/* In the operator's own namespace: leadership. */}}
{{- define "videogen.leaseRules" -}}
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [get, create, update]
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
