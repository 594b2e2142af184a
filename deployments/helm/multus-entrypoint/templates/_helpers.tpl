{{/* The runtime's directories on the host: those that are given, else the platform's, else the usual ones. */}}
{{- define "multus-entrypoint.hostPaths" -}}
{{- $platforms := .Files.Get "platforms.yaml" | fromYaml -}}
{{- $given := dict -}}
{{- range $name, $path := .Values.hostPaths -}}
{{- if $path }}{{ $_ := set $given $name $path }}{{ end -}}
{{- end -}}
{{- merge $given (get $platforms .Values.platform) (get $platforms "") | toYaml -}}
{{- end }}

{{/* The flags beside --multus-conf-file: those that are given, else what the platform needs. */}}
{{- define "multus-entrypoint.flags" -}}
{{- $confDir := (include "multus-entrypoint.hostPaths" . | fromYaml).confDir -}}
{{- $flags := dict -}}
{{- if ne $confDir "/etc/cni/net.d" -}}
{{- $_ := set $flags "multus-kubeconfig-file-host" (printf "%s/multus.d/multus.kubeconfig" $confDir) -}}
{{- end -}}
{{- if eq .Values.platform "crio" -}}
{{- $_ := set $flags "restart-crio" false -}}
{{- end -}}
{{- mergeOverwrite $flags (omit .Values.flags "multus-conf-file") | toYaml -}}
{{- end }}

{{/* One flag as an argument; what is no string, as JSON. */}}
{{- define "multus-entrypoint.arg" -}}
{{- printf "--%s=%s" .name (ternary .value (toJson .value) (kindIs "string" .value)) -}}
{{- end }}

{{/* All arguments, in the order of deployments/multus-daemonset.yml. */}}
{{- define "multus-entrypoint.args" -}}
{{- $args := list
  (include "multus-entrypoint.arg" (dict "name" "multus-conf-file" "value" (index .Values.flags "multus-conf-file")))
  "--multus-autoconfig-dir=/host/etc/cni/net.d"
  "--cni-conf-dir=/host/etc/cni/net.d"
  "--cni-bin-dir=/host/opt/cni/bin"
  "--ready-file=/run/multus-entrypoint/ready"
-}}
{{- range $name, $value := include "multus-entrypoint.flags" . | fromYaml -}}
{{- range ternary $value (list $value) (kindIs "slice" $value) -}}
{{- if not (or (kindIs "invalid" .) (eq (toString .) "")) -}}
{{- $args = append $args (include "multus-entrypoint.arg" (dict "name" $name "value" .)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- concat $args .Values.extraArgs | toYaml -}}
{{- end }}

{{- define "multus-entrypoint.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default (printf "v%s" $.Chart.AppVersion) }}
{{- end -}}
{{- end -}}
{{- end }}
