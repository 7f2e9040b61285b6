use serde_json::{Value, json};

fn read(path: &str) -> Value {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn the_page_may_ask_for_this_apps_commands_and_nothing_else() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("capabilities");
    let files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert_eq!(files, ["main.json"], "there is one capability file");
    let mut capability = read("capabilities/main.json");
    capability.as_object_mut().unwrap().remove("description");
    assert_eq!(
        capability,
        json!({
            "$schema": "../gen/schemas/desktop-schema.json",
            "identifier": "main",
            "local": true,
            "windows": ["main"],
            "permissions": [],
        })
    );
}

#[test]
fn the_page_runs_only_what_was_built_in_and_reaches_nobody() {
    let config = read("tauri.conf.json");
    let security = &config["app"]["security"];
    assert_eq!(security["capabilities"], json!(["main"]));
    assert_eq!(security["freezePrototype"], true);
    assert_eq!(security["assetProtocol"]["enable"], false);
    assert_eq!(config["app"]["withGlobalTauri"], false);
    assert_eq!(config["app"]["windows"], json!([]), "windows are made in Rust");
    assert_eq!(config["build"].get("devUrl"), None);
    let csp: Vec<&str> = security["csp"].as_str().unwrap().split("; ").collect();
    assert_eq!(
        csp,
        [
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "style-src-attr 'unsafe-inline'",
            "img-src 'self' data:",
            "font-src 'self'",
            "connect-src ipc: http://ipc.localhost",
            "form-action 'none'",
            "base-uri 'none'",
            "frame-ancestors 'none'",
        ]
    );
}

#[test]
fn no_plugin_gives_the_page_files_or_programs() {
    let manifest = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")).unwrap();
    let plugins: Vec<&str> = manifest.lines().filter_map(|line| line.strip_prefix("tauri-plugin-")).collect();
    assert_eq!(plugins, ["autostart.workspace = true"]);
}
