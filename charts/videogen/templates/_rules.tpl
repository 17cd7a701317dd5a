{{/* The operator's rights, in three parts by where they must be granted. No wildcard, no Secrets, no exec. */}}

{{/* In every watched namespace. */}}
{{- define "videogen.namespacedRules" -}}
# What users write: read; their status: written.
- apiGroups: [videogen.pib.gov.in]
  resources: [trainingruns, modelreleases]
  verbs: [get, list, watch]
- apiGroups: [videogen.pib.gov.in]
  resources: [trainingruns/status, modelreleases/status]
  verbs: [patch]
# Needed by clusters that let only those set blockOwnerDeletion who may change the owner's finalizers; the operator sets none.
- apiGroups: [videogen.pib.gov.in]
  resources: [trainingruns/finalizers, modelreleases/finalizers]
  verbs: [update]
# A run's Release phase applies a ModelRelease.
- apiGroups: [videogen.pib.gov.in]
  resources: [modelreleases]
  verbs: [create, patch]
# Children: applied, and deleted when they are no longer wanted.
- apiGroups: [kubeflow.org]
  resources: [pytorchjobs]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [configmaps, services]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [gateway.networking.k8s.io]
  resources: [httproutes]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [gateway.envoyproxy.io]
  resources: [backendtrafficpolicies]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [gateway.networking.k8s.io]
  resources: [gateways]
  verbs: [get, list, watch]
# Why a pod does not start or has ended, and whether the storage exists.
- apiGroups: [""]
  resources: [pods, persistentvolumeclaims]
  verbs: [get, list, watch]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end -}}

{{/* Cluster-wide, because these have no namespace. */}}
{{- define "videogen.clusterRules" -}}
# Whether any node has the GPUs, CPUs and memory that are asked for.
- apiGroups: [""]
  resources: [nodes]
  verbs: [get, list, watch]
# When a kind appears that was not there, for example because the training-operator was installed later.
- apiGroups: [apiextensions.k8s.io]
  resources: [customresourcedefinitions]
  verbs: [list, watch]
# Who reports progress.
- apiGroups: [authentication.k8s.io]
  resources: [tokenreviews]
  verbs: [create]
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
