{{/* Names. Everything of a release starts with its full name. */}}
{{- define "alluxio-dataset.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "alluxio-dataset.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 48 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 48 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 48 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The driver's name is in every PersistentVolume, so it is no value. */}}
{{- define "alluxio-dataset.driver" -}}csi.alluxio-dataset.io{{- end -}}

{{- define "alluxio-dataset.image" -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}

{{- define "alluxio-dataset.pluginDir" -}}
{{- printf "%s/plugins/%s" (trimSuffix "/" .Values.kubeletDir) (include "alluxio-dataset.driver" .) -}}
{{- end -}}

{{/* Labels. Call with (dict "root" $ "component" "operator"). */}}
{{- define "alluxio-dataset.selectorLabels" -}}
app.kubernetes.io/name: {{ include "alluxio-dataset.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "alluxio-dataset.labels" -}}
{{ include "alluxio-dataset.selectorLabels" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: alluxio-dataset
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* A pod template's metadata. Call with (dict "root" $ "component" "csi" "values" .Values.csi "port" 9090). */}}
{{- define "alluxio-dataset.podMetadata" -}}
labels:
  {{- include "alluxio-dataset.selectorLabels" . | nindent 2 }}
  {{- with .values.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- if or .root.Values.metrics.scrapeAnnotations .values.podAnnotations .annotations }}
annotations:
  {{- if .root.Values.metrics.scrapeAnnotations }}
  prometheus.io/scrape: "true"
  prometheus.io/port: {{ .port | quote }}
  prometheus.io/path: /metrics
  {{- end }}
  {{- with .annotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  {{- with .values.podAnnotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* Where a component's pods run. Call with (dict "root" $ "values" .Values.csi). */}}
{{- define "alluxio-dataset.placement" -}}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* What every unprivileged container may do: nothing. */}}
{{- define "alluxio-dataset.unprivileged" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{- define "alluxio-dataset.nonRootPod" -}}
runAsNonRoot: true
runAsUser: {{ . }}
runAsGroup: {{ . }}
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{/* Probes. Call with (dict "alive" "/healthz" "ready" "/readyz"). */}}
{{- define "alluxio-dataset.probes" -}}
startupProbe:
  httpGet: {path: {{ .alive }}, port: http-metrics}
  periodSeconds: 1
  failureThreshold: 60
livenessProbe:
  httpGet: {path: {{ .alive }}, port: http-metrics}
  periodSeconds: 10
  timeoutSeconds: 5
{{ include "alluxio-dataset.readiness" . }}
{{- end -}}

{{- define "alluxio-dataset.readiness" -}}
readinessProbe:
  httpGet: {path: {{ .ready }}, port: http-metrics}
  periodSeconds: 5
  timeoutSeconds: 3
{{- end -}}
