// Node-RED without editor, admin interface or anything that speaks to the outside.
module.exports = {
  uiHost: "127.0.0.1", uiPort: Number(process.env.BENCH_HTTP_PORT), httpAdminRoot: false, disableEditor: true,
  flowFile: "flows.json", credentialSecret: false, diagnostics: { enabled: false }, runtimeState: { enabled: false },
  telemetry: { enabled: false, updateNotification: false }, functionExternalModules: false,
  externalModules: { autoInstall: false, palette: { allowInstall: false } },
  editorTheme: { projects: { enabled: false } },
  logging: { console: { level: "warn", metrics: false, audit: false } },
};
