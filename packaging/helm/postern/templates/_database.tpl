{{- /* What everything needs that works on the control plane's database. */ -}}

{{- define "postern.databaseVariables" -}}
{{- $control := .Values.control -}}
- name: POSTERN_DATABASE_URL
  valueFrom:
    secretKeyRef:
      name: {{ $control.database.secret }}
      key: {{ $control.database.key }}
- name: POSTERN_CONTROL_KEY_FILE
  value: /etc/postern/key/{{ $control.keyFile.key }}
{{- end -}}

{{- define "postern.databaseMounts" -}}
- name: key
  mountPath: /etc/postern/key
  readOnly: true
{{- if .Values.control.database.authoritySecret }}
- name: database
  mountPath: /etc/postern/database
  readOnly: true
{{- end }}
{{- end -}}

{{- define "postern.databaseVolumes" -}}
{{- $control := .Values.control -}}
- name: key
  secret:
    secretName: {{ $control.keyFile.secret }}
    # Group: that of the pod.
    defaultMode: 0440
{{- with $control.database.authoritySecret }}
- name: database
  secret:
    secretName: {{ . }}
{{- end }}
{{- end -}}
