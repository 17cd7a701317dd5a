{{/* files/rules.yaml with the values of `alerts` in it: what a Prometheus rule file has. */}}
{{- define "videogen.ruleGroups" -}}
{{- $file := .Files.Get "files/rules.yaml" | fromYaml }}
{{- range $group := $file.groups }}
{{- $_ := set $group "interval" $.Values.alerts.interval }}
{{- range $rule := $group.rules }}
{{- $_ := set $rule "expr" ($rule.expr | replace "[1m]" (printf "[%s]" $.Values.alerts.window)) }}
{{- $for := ternary $.Values.alerts.rollbackFor $.Values.alerts.pageFor (eq $group.name "videogen-rollback") }}
{{- if ne $for "0s" }}
{{- $_ := set $rule "for" $for }}
{{- else }}
{{- $_ := unset $rule "for" }}
{{- end }}
{{- $_ := set $rule "labels" (mergeOverwrite (dict) $rule.labels $.Values.alerts.labels) }}
{{- $_ := set $rule.annotations "runbook_url" (printf "%s#%s" $.Values.alerts.runbookUrl (lower $rule.alert)) }}
{{- end }}
{{- end }}
{{- toYaml $file }}
{{- end -}}
