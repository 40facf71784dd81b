{{- define "margay.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{/* Labels of every object; the argument is a list of the root and the component's name. */}}
{{- define "margay.labels" -}}
app.kubernetes.io/name: {{ index . 1 }}
app.kubernetes.io/part-of: margay
app.kubernetes.io/version: {{ (index . 0).Chart.AppVersion | quote }}
{{- end }}

{{/* Where the API server is, for agents and controllers alike. */}}
{{- define "margay.apiServerEnv" -}}
- name: MARGAY_API_SERVER
  valueFrom: {configMapKeyRef: {name: margay-config, key: apiServer, optional: true}}
{{- end }}

{{/* `name` and the spec beside it, as an object of projectcalico.org/v3. */}}
{{- define "margay.named" -}}
{{- $kind := index . 0 -}}
{{- $item := index . 1 -}}
apiVersion: projectcalico.org/v3
kind: {{ $kind }}
metadata:
  name: {{ $item.name }}
{{- if eq $kind "IPPool" }}
  annotations:
    helm.sh/resource-policy: keep
{{- end }}
spec:
  {{- omit $item "name" | toYaml | nindent 2 }}
{{- end }}

{{/* What a policy on the agents' writes looks at; the argument is a list of the root, group, version, resource and operations. */}}
{{- define "margay.agents" -}}
failurePolicy: Fail
matchConstraints:
  resourceRules:
    - apiGroups: [{{ index . 1 | quote }}]
      apiVersions: [{{ index . 2 }}]
      resources: [{{ index . 3 }}]
      operations: [{{ index . 4 }}]
matchConditions:
  - name: by-an-agent
    expression: request.userInfo.username == 'system:serviceaccount:{{ (index . 0).Release.Namespace }}:margay-node'
{{- end }}

{{/* The node that the token names; empty when it names none. */}}
{{- define "margay.tokensNode" -}}
- name: node
  expression: request.userInfo.?extra[?'authentication.kubernetes.io/node-name'].orValue([]).join('')
{{- end }}

{{- define "margay.tokenHasNode" -}}
- expression: variables.node != ''
  reason: Forbidden
  message: >-
    this token of ServiceAccount margay-node names no node (authentication.kubernetes.io/node-name): what an agent writes
    must be its own node's, so only tokens of its pods are taken, from Kubernetes 1.30 on
{{- end }}
