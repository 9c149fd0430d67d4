{{/*
One role: its Deployment, HorizontalPodAutoscaler and PodDisruptionBudget.
Takes root, role (its key in the values), target, surge and unavailable.
*/}}
{{- define "pyrograph.role" -}}
{{- $root := .root }}
{{- $values := index $root.Values .role }}
{{- $full := include "pyrograph.fullname" $root }}
{{- $name := eq .role "single" | ternary $full (printf "%s-%s" $full .role) }}
{{- $selector := printf "%s\napp.kubernetes.io/component: %s" (include "pyrograph.selector" $root) .role }}
{{- $labels := printf "%s\napp.kubernetes.io/component: %s" (include "pyrograph.labels" $root) .role }}
{{- $isAlone := not (include "pyrograph.isCluster" $root) }}
{{- $cacheGib := dig "diskCache" "gib" 0 $values | int }}
{{- /* A pod is evicted when its emptyDir exceeds its size: files being written need room, too. */}}
{{- $cacheSize := printf "%dGi" (add $cacheGib 1 (div $cacheGib 8)) }}
{{- $resources := $values.resources }}
{{- if $cacheGib }}
{{- $resources = merge (deepCopy $resources) (dict "requests" (dict "ephemeral-storage" $cacheSize)) }}
{{- end }}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ $name }}
  namespace: {{ $root.Release.Namespace }}
  labels:
    {{- $labels | nindent 4 }}
spec:
  {{- if not $values.autoscaling.enabled }}
  replicas: {{ $values.replicas }}
  {{- end }}
  revisionHistoryLimit: 3
  strategy:
    {{- if $isAlone }}
    # Only one process at a time may use the directory.
    type: Recreate
    {{- else }}
    type: RollingUpdate
    rollingUpdate:
      maxSurge: {{ .surge }}
      maxUnavailable: {{ .unavailable }}
    {{- end }}
  selector:
    matchLabels:
      {{- $selector | nindent 6 }}
  template:
    metadata:
      labels:
        {{- $labels | nindent 8 }}
        {{- with $root.Values.podLabels }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      annotations:
        checksum/config: {{ toYaml $root.Values.config | sha256sum }}
        checksum/secret: {{ toYaml $root.Values.secret | sha256sum }}
        {{- with merge (dict) ($values.podAnnotations | default dict) $root.Values.podAnnotations }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    spec:
      serviceAccountName: {{ include "pyrograph.serviceAccount" $root }}
      automountServiceAccountToken: false
      enableServiceLinks: false
      terminationGracePeriodSeconds: {{ add $root.Values.preStopSeconds $root.Values.drainSeconds 10 }}
      securityContext:
        {{- toYaml $root.Values.podSecurityContext | nindent 8 }}
      {{- with $root.Values.imagePullSecrets }}
      imagePullSecrets:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- range $key := list "nodeSelector" "tolerations" "affinity" }}
      {{- with index $values $key }}
      {{ $key }}:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- end }}
      {{- with $values.priorityClassName }}
      priorityClassName: {{ . }}
      {{- end }}
      {{- with $root.Values.topologySpread }}
      topologySpreadConstraints:
        {{- range . }}
        - {{ toYaml . | nindent 10 | trim }}
          matchLabelKeys: [pod-template-hash]
          labelSelector:
            matchLabels:
              {{- $selector | nindent 14 }}
        {{- end }}
      {{- end }}
      containers:
        - name: pyrograph
          image: {{ include "pyrograph.image" $root }}
          imagePullPolicy: {{ $root.Values.image.pullPolicy }}
          args:
            - -target={{ .target }}
            - -config.file=/etc/pyrograph/config.yaml
            - -config.expand-env
            - -server.http-listen-port={{ $root.Values.ports.http }}
            - -server.grpc-listen-port={{ $root.Values.ports.grpc }}
            - -server.graceful-shutdown-timeout={{ $root.Values.drainSeconds }}s
            - -instance.zone=$(ZONE)
            {{- if $cacheGib }}
            - -querier.disk-cache-dir=/cache
            - -querier.disk-cache-bytes={{ mul $cacheGib 1073741824 }}
            {{- end }}
            {{- if not $isAlone }}
            - -memberlist.join={{ $full }}-members.{{ $root.Release.Namespace }}.svc.{{ $root.Values.clusterDomain }}:{{ $root.Values.ports.gossip }}
            - -memberlist.bind-port={{ $root.Values.ports.gossip }}
            - -memberlist.advertise-addr=$(POD_IP)
            - -memberlist.cluster-label={{ $root.Release.Namespace }}/{{ $full }}
            {{- end }}
            {{- range concat $root.Values.extraArgs ($values.extraArgs | default list) }}
            - {{ . | quote }}
            {{- end }}
          env:
            - name: POD_IP
              valueFrom: {fieldRef: {fieldPath: status.podIP}}
            - name: ZONE
              {{- if $root.Values.zone }}
              value: {{ $root.Values.zone | quote }}
              {{- else }}
              valueFrom: {fieldRef: {fieldPath: "metadata.labels['topology.kubernetes.io/zone']"}}
              {{- end }}
            {{- with $root.Values.extraEnv }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
          {{- with include "pyrograph.secret" $root }}
          envFrom:
            - secretRef: {name: {{ . }}}
          {{- end }}
          ports:
            - {name: http, containerPort: {{ $root.Values.ports.http }}}
            {{- if not $isAlone }}
            - {name: grpc, containerPort: {{ $root.Values.ports.grpc }}}
            - {name: gossip, containerPort: {{ $root.Values.ports.gossip }}, protocol: UDP}
            {{- end }}
          # Ready means able to serve; a start may have to read a month of catalog.
          startupProbe:
            httpGet: {path: /ready, port: http}
            periodSeconds: 1
            failureThreshold: 300
          readinessProbe:
            httpGet: {path: /ready, port: http}
            periodSeconds: 5
            timeoutSeconds: 3
            failureThreshold: 2
          # Checks only that the process answers: a store that is down is no reason to restart.
          livenessProbe:
            httpGet: {path: /api/v1/status/buildinfo, port: http}
            periodSeconds: 15
            timeoutSeconds: 10
            failureThreshold: 4
          lifecycle:
            preStop:
              sleep: {seconds: {{ $root.Values.preStopSeconds }}}
          resources:
            {{- toYaml $resources | nindent 12 }}
          securityContext:
            {{- toYaml $root.Values.securityContext | nindent 12 }}
          volumeMounts:
            - {name: config, mountPath: /etc/pyrograph, readOnly: true}
            {{- if $isAlone }}
            - {name: data, mountPath: {{ $root.Values.config.storage.filesystem.dir }}}
            {{- end }}
            {{- if $cacheGib }}
            - {name: cache, mountPath: /cache}
            {{- end }}
            {{- with $root.Values.extraVolumeMounts }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
      volumes:
        - name: config
          configMap: {name: {{ $full }}}
        {{- if $isAlone }}
        - name: data
          {{- toYaml $root.Values.dataVolume | nindent 10 }}
        {{- end }}
        {{- if $cacheGib }}
        - name: cache
          emptyDir: {sizeLimit: {{ $cacheSize }}}
        {{- end }}
        {{- with $root.Values.extraVolumes }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ $name }}
  namespace: {{ $root.Release.Namespace }}
  labels:
    {{- $labels | nindent 4 }}
spec:
  {{- toYaml $values.pdb | nindent 2 }}
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- $selector | nindent 6 }}
{{- with $values.autoscaling }}
{{- if .enabled }}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: {{ $name }}
  namespace: {{ $root.Release.Namespace }}
  labels:
    {{- $labels | nindent 4 }}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: {{ $name }}}
  minReplicas: {{ .min }}
  maxReplicas: {{ .max }}
  metrics:
    {{- range $resource := list "cpu" "memory" }}
    {{- with index $values.autoscaling $resource }}
    - type: Resource
      resource: {name: {{ $resource }}, target: {type: Utilization, averageUtilization: {{ . }}}}
    {{- end }}
    {{- end }}
  behavior:
    # Scale down slowly: profiles arrive in bursts, and a new process has cold caches.
    scaleDown:
      stabilizationWindowSeconds: 600
      policies: [{type: Pods, value: 1, periodSeconds: 120}]
{{- end }}
{{- end }}
{{- end }}

{{/* The public Service of a role. Takes root, role. */}}
{{- define "pyrograph.service" -}}
{{- $full := include "pyrograph.fullname" .root }}
apiVersion: v1
kind: Service
metadata:
  name: {{ eq .role "single" | ternary $full (printf "%s-%s" $full .role) }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "pyrograph.labels" .root | nindent 4 }}
    app.kubernetes.io/component: {{ .role }}
  {{- with .root.Values.service.annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  type: {{ .root.Values.service.type }}
  ports:
    - {name: http, port: {{ .root.Values.ports.http }}, targetPort: http}
  selector:
    {{- include "pyrograph.selector" .root | nindent 4 }}
    app.kubernetes.io/component: {{ .role }}
{{- end }}
