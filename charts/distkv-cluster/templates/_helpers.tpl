{{- define "distkv.name" -}}
{{- default .Release.Name .Values.nameOverride }}
{{- end }}

{{- define "distkv.labels" -}}
app.kubernetes.io/name: distkv
app.kubernetes.io/instance: {{ include "distkv.name" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | quote }}
{{- with .Values.labels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /*
What was given and is not the default, as YAML. Only that goes into the resource: what nobody
chose stays the operator's choice, and an upgrade of the chart alone changes no cluster.
CPU and memory go together: Kubernetes would take half of them for the whole.
*/ -}}
{{- define "distkv.chosen" -}}
{{- $defaults := index . 1 }}
{{- $chosen := dict }}
{{- range $key, $value := index . 0 }}
{{- $default := get $defaults $key }}
{{- if and (kindIs "map" $value) (kindIs "map" $default) (ne $key "resources") }}
{{- with include "distkv.chosen" (list $value $default) | fromYaml }}
{{- $_ := set $chosen $key . }}
{{- end }}
{{- else if and (not (kindIs "invalid" $value)) (ne (toJson $value) (toJson $default)) }}
{{- $_ := set $chosen $key $value }}
{{- end }}
{{- end }}
{{- toYaml $chosen }}
{{- end }}

{{- define "distkv.spec" -}}
{{- $defaults := .Files.Get "files/defaults.json" | fromJson }}
{{- $spec := dict }}
{{- range $key, $_ := $defaults }}
{{- $_ := set $spec $key (get $.Values $key) }}
{{- end }}
{{- include "distkv.chosen" (list $spec $defaults) }}
{{- end }}
