{{/* The runtime's directories on the host: those that are given, else the platform's, else the usual ones. */}}
{{- define "multus-entrypoint.hostPaths" -}}
{{- $platforms := .Files.Get "platforms.yaml" | fromYaml -}}
{{- $given := dict -}}
{{- range $name, $path := .Values.hostPaths -}}
{{- if $path }}{{ $_ := set $given $name $path }}{{ end -}}
{{- end -}}
{{- $platform := get $platforms .Values.platform -}}
{{- if or $given.confDir $given.binDir -}}
{{- $platform = omit $platform "root" -}}
{{- end -}}
{{- $paths := merge $given $platform (get $platforms "") -}}
{{- with $paths.root -}}
{{- range list $paths.confDir $paths.binDir -}}
{{- if not (hasPrefix (printf "%s/" $paths.root) .) -}}
{{- fail (printf "hostPaths.root: %s is mounted, and %s is not below it" $paths.root .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $paths | toYaml -}}
{{- end }}

{{/* The same directories as the container sees them. */}}
{{- define "multus-entrypoint.containerPaths" -}}
{{- $paths := include "multus-entrypoint.hostPaths" . | fromYaml -}}
{{- if $paths.root -}}
{{- dict "confDir" (printf "/host%s" $paths.confDir) "binDir" (printf "/host%s" $paths.binDir) | toYaml -}}
{{- else -}}
{{- dict "confDir" "/host/etc/cni/net.d" "binDir" "/host/opt/cni/bin" | toYaml -}}
{{- end -}}
{{- end }}

{{/* The flags beside --multus-conf-file: those that are given, else what the platform needs. */}}
{{- define "multus-entrypoint.flags" -}}
{{- $confDir := (include "multus-entrypoint.hostPaths" . | fromYaml).confDir -}}
{{- $flags := dict -}}
{{- if ne $confDir "/etc/cni/net.d" -}}
{{- $_ := set $flags "multus-kubeconfig-file-host" (printf "%s/multus.d/multus.kubeconfig" $confDir) -}}
{{- end -}}
{{- if eq .Values.platform "crio" -}}
{{- $_ := set $flags "override-network-name" true -}}
{{- end -}}
{{- if .Values.plugins.image -}}
{{- $_ := set $flags "plugin-bin-dir" "/plugins" -}}
{{- end -}}
{{- mergeOverwrite $flags (omit .Values.flags "multus-conf-file") | toYaml -}}
{{- end }}

{{/* One flag as an argument; what is no string, as JSON. */}}
{{- define "multus-entrypoint.arg" -}}
{{- printf "--%s=%s" .name (ternary .value (toJson .value) (kindIs "string" .value)) -}}
{{- end }}

{{/* All arguments, in the order of deployments/multus-daemonset.yml. */}}
{{- define "multus-entrypoint.args" -}}
{{- $paths := include "multus-entrypoint.containerPaths" . | fromYaml -}}
{{- $args := list
  (include "multus-entrypoint.arg" (dict "name" "multus-conf-file" "value" (index .Values.flags "multus-conf-file")))
  (printf "--multus-autoconfig-dir=%s" $paths.confDir)
  (printf "--cni-conf-dir=%s" $paths.confDir)
  (printf "--cni-bin-dir=%s" $paths.binDir)
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

{{/* An image of somebody else's has no tag that we could know. */}}
{{- define "multus-entrypoint.image" -}}
{{- $default := "ghcr.io/multus-entrypoint/multus-entrypoint" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else if .tag -}}
{{ .repository }}:{{ .tag }}
{{- else if eq .repository $default -}}
{{ .repository }}:v{{ $.Chart.AppVersion }}
{{- else -}}
{{- fail "image.repository is one of your own: set image.tag or image.digest too" -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* Whether the policy is made: as the value says, else where the cluster has such policies. */}}
{{- define "multus-entrypoint.hasPolicy" -}}
{{- $wanted := .Values.admissionPolicy -}}
{{- if kindIs "invalid" $wanted -}}
{{- $wanted = semverCompare ">=1.30.0-0" .Capabilities.KubeVersion.Version -}}
{{- end -}}
{{- if $wanted }}true{{ end -}}
{{- end }}

{{/* What the errands and `check` need beyond what Multus itself does. */}}
{{- define "multus-entrypoint.errandsRules" -}}
{{- $repairPods := index .Values.flags "repair-pods" -}}
{{- if index .Values.flags "startup-taint" }}
- apiGroups: [""]
  resources: ["nodes"]
  verbs: ["get", "patch"]
{{- end }}
{{- if or .Values.rbac.check $repairPods }}
- apiGroups: [""]
  resources: ["pods"]
  verbs: ["list"]
{{- end }}
{{- if .Values.rbac.check }}
- apiGroups: ["k8s.cni.cncf.io"]
  resources: ["network-attachment-definitions"]
  verbs: ["list"]
{{- end }}
{{- if eq (toString $repairPods) "delete" }}
- apiGroups: [""]
  resources: ["pods/eviction"]
  verbs: ["create"]
{{- end }}
{{- end }}
