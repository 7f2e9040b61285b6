//! The Helm chart: rendered with the engine that helm uses, judged by its own schema and by those of Kubernetes, and by what a
//! schema cannot say: that names in one place are names of another.
//!
//! helm itself cannot be had from the registries that tests use, so `tests/helm/render.go` stands for it.
#![expect(clippy::indexing_slicing, reason = "what is not in a manifest is null")]

use std::{collections::BTreeSet, path::Path, time::Duration};

use anyhow::{Context as _, ensure};
use postern_tests::{
    binaries::binaries,
    command::{run, run_with_input, variables},
    need, need_program, need_python,
    python::Python,
    servers::{Folder, folder},
};
use serde_json::{Value, json};

const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/helm/postern");
/// The oldest version of Kubernetes that Chart.yaml takes, and the newest that is known.
const VERSIONS: [&str; 2] = ["1.30", "1.37"];
/// Debian's sources of Go packages.
const GO_PATH: &str = "/usr/share/gocode";
/// The compiler may have its whole library to compile first.
const PATIENCE: Duration = Duration::from_secs(400);

/// Values that must be taken, and what must come of them.
const GOOD: [(&str, &[&str]); 6] = [
    (
        "workers: {controlUrl: 'https://postern.example.org:8443', authority: {fingerprint: \
         aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa}}",
        &["Deployment", "PodDisruptionBudget", "Service"],
    ),
    // All of it.
    (
        "
imagePullSecrets: [{name: registry}]
workers:
  authority: {secret: postern-authority}
  metrics: {enabled: true}
  autoscaling: {enabled: true}
  networkPolicy:
    enabled: true
    observers: [{namespaceSelector: {matchLabels: {name: monitoring}}}]
    egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8}}]}]
  persistence: {enabled: true, storageClass: fast}
  proxyProtocolFrom: [10.0.3.0/24, 'fd00::/64']
  env: [{name: POSTERN_SPOOL_LIMIT, value: '512'}]
  nodeSelector: {disk: ssd}
  tolerations: [{key: edge, operator: Exists}]
  affinity: {nodeAffinity: {}}
  priorityClassName: high
  podAnnotations: {a: b}
  service: {loadBalancerClass: example.org/nlb, loadBalancerSourceRanges: [192.0.2.0/24], annotations: {a: 'true'}}
control:
  enabled: true
  names: [postern.example.org, 192.0.2.1]
  adminEmail: ada@example.org
  database: {authoritySecret: postgres-authority}
  tlsSecret: control-tls
  backup: {enabled: true, storageClass: slow}
  metrics: {enabled: true}
  networkPolicy: {enabled: true, observers: [{namespaceSelector: {matchLabels: {name: monitoring}}}]}
",
        &[
            "CronJob",
            "Deployment",
            "HorizontalPodAutoscaler",
            "NetworkPolicy",
            "NetworkPolicy",
            "PersistentVolumeClaim",
            "PodDisruptionBudget",
            "PodDisruptionBudget",
            "Service",
            "Service",
            "Service",
            "Service",
            "Service",
            "StatefulSet",
        ],
    ),
    (
        "{workers: {enabled: false}, control: {enabled: true, backup: {enabled: true, claim: backups}, service: {type: \
         ClusterIP}}}",
        &["CronJob", "Deployment", "PodDisruptionBudget", "Service"],
    ),
    (
        "workers: {controlUrl: 'https://c:1', authority: {configMap: ca}, tls: {certSource: file, secret: edge, clientAuth: \
         none}, service: {type: NodePort, nodePort: 30443}, preStopSeconds: 0, drainSeconds: 86400}",
        &["Deployment", "PodDisruptionBudget", "Service"],
    ),
    (
        "workers: {controlUrl: 'https://c:1', authority: {configMap: ca}, tls: {certSource: none, clientAuth: none}, \
         disruptionBudget: {enabled: false}, resources: null}",
        &["Deployment", "Service"],
    ),
    (
        "{fullnameOverride: edge, workers: {controlUrl: 'https://c:1', authority: {configMap: ca}, image: {repository: \
         registry.example.org/postern-node, digest: \
         'sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb'}}}",
        &["Deployment", "PodDisruptionBudget", "Service"],
    ),
];

/// What is put before values that are right but for one.
const REST: &str = "controlUrl: 'https://c:1', authority: {configMap: ca}";

/// Values that must be refused, and a word of why.
const WRONG: [(&str, &str); 15] = [
    ("workers: {REST, replica: 3}", "replica"),
    ("workers: {REST, replicas: two}", "workers.replicas"),
    ("worker: {REST}", "worker"),
    ("workers: {REST, service: {type: ExternalName}}", "ExternalName"),
    ("workers: {REST, service: {port: 70000}}", "70000"),
    ("workers: {REST, tls: {certSource: none}}", "clientAuth"),
    ("workers: {REST, tls: {certSource: file}}", "workers.tls.secret"),
    ("workers: {REST, tls: {certSource: acme}}", "acme"),
    ("workers: {REST, drainSeconds: -1}", "-1"),
    ("workers: {REST, image: {digest: 'sha256:short'}}", "workers.image.digest"),
    ("workers: {REST, proxyProtocolFrom: [everybody]}", "everybody"),
    ("workers: {controlUrl: 'http://c:1', authority: {configMap: ca}}", "workers.controlUrl"),
    ("workers: {authority: {configMap: ca}}", "workers.controlUrl is needed"),
    ("workers: {controlUrl: 'https://c:1'}", "workers.authority is needed"),
    ("{workers: {REST}, control: {enabled: true, backup: {schedule: daily}}}", "control.backup.schedule"),
];

/// Faults in manifests: a text, what takes its place in the first file that has it, and how it is noticed.
const BROKEN: [(&str, &str, &str); 21] = [
    ("  replicas: 2\n", "  replicas: \"2\"\n", "not of type"),
    ("containerPort: 8443", "containerport: 8443", "'containerPort' is a required property"),
    ("minReadySeconds: 5\n", "minReadySecond: 5\n", "minReadySecond"),
    ("kind: PodDisruptionBudget", "kind: PodDisruptionBudgets", "PodDisruptionBudgets"),
    ("apiVersion: policy/v1\n", "apiVersion: policy/v1beta1\n", "PodDisruptionBudget"),
    ("minReadySeconds: 5\n", "minReadySeconds: 5\n  minReadySeconds: 6\n", "twice"),
    ("minReadySeconds: 5\n", "\tminReadySeconds: 5\n", "yaml"),
    ("backoffLimit: 2", "backoffLimit: two", "two"),
    ("concurrencyPolicy: Forbid", "concurrencyPolicy: [Forbid]", "concurrencyPolicy"),
    ("targetPort: tunnel", "targetPort: tunel", "no port tunel"),
    ("port: liveness\n            periodSeconds", "port: liveliness\n            periodSeconds", "no port liveliness"),
    ("- name: state\n              mountPath", "- name: stat\n              mountPath", "no volume stat"),
    ("readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false", "readOnlyRootFilesystem"),
    ("runAsNonRoot: true", "runAsNonRoot: false", "runAsNonRoot"),
    ("drop: [\"ALL\"]", "drop: [\"NET_RAW\"]", "capabilities"),
    ("type: RuntimeDefault", "type: Unconfined", "seccompProfile"),
    ("terminationGracePeriodSeconds: 335", "terminationGracePeriodSeconds: 300", "is killed before"),
    ("name: POSTERN_DRAIN\n", "name: POSTERN_DRAINS\n", "no program reads POSTERN_DRAINS"),
    ("args: [\"worker\"]", "args: [\"workers\"]", "workers is no command"),
    (
        "    kind: StatefulSet\n    name: demo-postern-worker\n",
        "    kind: Deployment\n    name: demo-postern-worker\n",
        "scales nothing",
    ),
    (
        "selector:\n    app.kubernetes.io/name: \"postern\"\n    app.kubernetes.io/instance: \"demo\"\n    \
         app.kubernetes.io/component: \"worker\"",
        "selector:\n    app.kubernetes.io/component: \"workers\"",
        "selects 0 workloads",
    ),
];

/// What renders, judges, and knows our programs.
struct Bench {
    folder: Folder,
    python: Python,
    /// Program, command, and the variables that it reads.
    commands: Vec<(&'static str, &'static str, BTreeSet<String>)>,
}

/// What came of values.
struct Rendered {
    values: Value,
    files: Value,
    /// What the templates said instead.
    refused: String,
}

/// Leaves the test with an announcement where the chart cannot be rendered or judged.
macro_rules! bench {
    () => {{
        need_program!("go");
        for package in ["github.com/Masterminds/sprig", "sigs.k8s.io/yaml"] {
            let there = Path::new(GO_PATH).join("src").join(package).is_dir();
            need!(there, &format!("{package} is not installed (tests/debian-packages.txt lists what is needed)"));
        }
        Bench::new(need_python!()).await?
    }};
}

impl Bench {
    async fn new(python: Python) -> anyhow::Result<Self> {
        let folder = folder()?;
        let mut build = tokio::process::Command::new("go");
        build.args(["build", "-o"]).arg(folder.path().join("render")).arg("helm/render.go");
        build.current_dir(env!("CARGO_MANIFEST_DIR"));
        build.env("GO111MODULE", "off").env("GOPATH", GO_PATH).env("GOFLAGS", "").env("GOTOOLCHAIN", "local");
        run(&mut build, PATIENCE).await?.success()?;
        let binaries = binaries()?;
        let mut commands = Vec::new();
        for (name, program, command) in [
            ("control", binaries.control(), "serve"),
            ("backup", binaries.control(), "backup"),
            ("worker", binaries.node(), "worker"),
        ] {
            // Secret, so it has no flag; and what every program reads.
            let more = ["POSTERN_PROXY_CLUSTER_SECRET_KEY", "RUST_LOG", "POD_NAME"].map(str::to_owned);
            let known = variables(&program, command)?.into_iter().chain(more).collect();
            commands.push((name, command, known));
        }
        Ok(Self { folder, python, commands })
    }

    async fn render(&self, values: &str) -> anyhow::Result<Rendered> {
        let asked = json!({"release": "demo", "namespace": "postern", "values": values}).to_string();
        let mut command = tokio::process::Command::new(self.folder.path().join("render"));
        let answer = run_with_input(command.arg(CHART), &asked, PATIENCE).await?.success()?;
        let answer: Value = serde_json::from_str(&answer)?;
        let refused = answer["refused"].as_str().context("no word of a refusal")?.to_owned();
        Ok(Rendered { values: answer["values"].clone(), files: answer["files"].clone(), refused })
    }

    /// The faults, and the manifests as far as they can be read.
    async fn judge(&self, rendered: &Rendered) -> anyhow::Result<(Vec<String>, Vec<Value>)> {
        let schema = std::fs::read(Path::new(CHART).join("values.schema.json"))?;
        let schema: Value = serde_json::from_slice(&schema)?;
        let asked = json!({"schema": schema, "values": rendered.values, "files": rendered.files, "versions": VERSIONS});
        let mut command = tokio::process::Command::new(self.python.program("python3"));
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/helm/judge.py"));
        let answer = run_with_input(&mut command, &asked.to_string(), PATIENCE).await?.success()?;
        let answer: Value = serde_json::from_str(&answer)?;
        let mut faults: Vec<String> = serde_json::from_value(answer["faults"].clone())?;
        let manifests: Vec<Value> = serde_json::from_value(answer["manifests"].clone())?;
        if !rendered.refused.is_empty() {
            faults.push(rendered.refused.clone());
        }
        faults.extend(self.loose_ends(&manifests));
        Ok((faults, manifests))
    }

    /// What names something that is not there, and pods that may do more than they must.
    fn loose_ends(&self, manifests: &[Value]) -> Vec<String> {
        let mut wrong = Vec::new();
        for manifest in manifests {
            let name = format!("{} {}", text(&manifest["kind"]), text(&manifest["metadata"]["name"]));
            let mut told = match text(&manifest["kind"]) {
                "Deployment" | "StatefulSet" | "CronJob" => self.faults_of_workload(manifest),
                "Service" => faults_of_service(manifest, manifests),
                "PodDisruptionBudget" => faults_of_selector(&manifest["spec"]["selector"]["matchLabels"], manifests),
                "NetworkPolicy" => faults_of_selector(&manifest["spec"]["podSelector"]["matchLabels"], manifests),
                "HorizontalPodAutoscaler" => {
                    let target = &manifest["spec"]["scaleTargetRef"];
                    let same =
                        |one: &&Value| one["kind"] == target["kind"] && one["metadata"]["name"] == target["name"];
                    if manifests.iter().any(|one| same(&one)) { Vec::new() } else { vec!["scales nothing".to_owned()] }
                }
                _ => Vec::new(),
            };
            if manifest["metadata"]["labels"]["app.kubernetes.io/managed-by"] != "Helm" {
                told.push("has not the usual labels".to_owned());
            }
            wrong.extend(told.into_iter().map(|fault| format!("{name}: {fault}")));
        }
        wrong
    }

    fn faults_of_workload(&self, manifest: &Value) -> Vec<String> {
        let mut wrong = Vec::new();
        let template = template(manifest);
        let (pod, container) = (&template["spec"], &template["spec"]["containers"][0]);
        for (label, value) in manifest["spec"]["selector"]["matchLabels"].as_object().into_iter().flatten() {
            if template["metadata"]["labels"][label] != *value {
                wrong.push(format!("its pods have no label {label}"));
            }
        }
        let (security, own) = (&pod["securityContext"], &container["securityContext"]);
        for (what, is, must) in [
            ("runAsNonRoot", &security["runAsNonRoot"], json!(true)),
            ("seccompProfile", &security["seccompProfile"]["type"], json!("RuntimeDefault")),
            ("readOnlyRootFilesystem", &own["readOnlyRootFilesystem"], json!(true)),
            ("allowPrivilegeEscalation", &own["allowPrivilegeEscalation"], json!(false)),
            ("capabilities", &own["capabilities"], json!({"drop": ["ALL"]})),
            ("automountServiceAccountToken", &pod["automountServiceAccountToken"], json!(false)),
        ] {
            if *is != must {
                wrong.push(format!("{what} is {is}"));
            }
        }
        wrong.extend(self.faults_of_command(container));
        wrong.extend(faults_of_mounts(manifest, pod, container));
        for probe in ["readinessProbe", "livenessProbe"] {
            for kind in ["httpGet", "tcpSocket"] {
                let port = text(&container[probe][kind]["port"]);
                if !port.is_empty() && !ports(container).contains(port) {
                    wrong.push(format!("{probe}: no port {port}"));
                }
            }
        }
        let number = |value: &Value| value.as_u64().unwrap_or_default();
        let drain = variable(container, "POSTERN_DRAIN").and_then(|value| value.parse().ok()).unwrap_or(0);
        let needed: u64 = drain + number(&container["lifecycle"]["preStop"]["sleep"]["seconds"]) + 10;
        let grace = pod["terminationGracePeriodSeconds"].as_u64().unwrap_or(30);
        if text(&manifest["kind"]) != "CronJob" && grace < needed {
            wrong.push(format!("is killed before it has drained: {grace} s, and it needs {needed}"));
        }
        wrong
    }

    fn faults_of_command(&self, container: &Value) -> Vec<String> {
        let name = text(&container["name"]);
        let Some((_, command, known)) = self.commands.iter().find(|(of, ..)| *of == name) else {
            return vec![format!("nobody knows the container {name}")];
        };
        let mut wrong = Vec::new();
        let first = text(&container["args"][0]);
        if first != *command {
            wrong.push(format!("{first} is no command of it"));
        }
        let mut seen = BTreeSet::new();
        for name in container["env"].as_array().into_iter().flatten().map(|variable| text(&variable["name"])) {
            // A backup needs no data folder, and the image names one.
            if !known.contains(name) {
                wrong.push(format!("no program reads {name}"));
            }
            if !seen.insert(name) {
                wrong.push(format!("{name} is there twice"));
            }
        }
        wrong
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn template(manifest: &Value) -> &Value {
    match text(&manifest["kind"]) {
        "CronJob" => &manifest["spec"]["jobTemplate"]["spec"]["template"],
        _ => &manifest["spec"]["template"],
    }
}

fn variable<'a>(container: &'a Value, name: &str) -> Option<&'a str> {
    container["env"].as_array()?.iter().find(|variable| variable["name"] == name)?["value"].as_str()
}

fn ports(container: &Value) -> BTreeSet<&str> {
    container["ports"].as_array().into_iter().flatten().map(|port| text(&port["name"])).collect()
}

fn faults_of_mounts(manifest: &Value, pod: &Value, container: &Value) -> Vec<String> {
    let names = |list: &Value| -> BTreeSet<String> {
        list.as_array().into_iter().flatten().map(|one| text(&one["name"]).to_owned()).collect()
    };
    let mut volumes = names(&pod["volumes"]);
    let claims = manifest["spec"]["volumeClaimTemplates"].as_array().into_iter().flatten();
    volumes.extend(claims.map(|claim| text(&claim["metadata"]["name"]).to_owned()));
    let mounts = names(&container["volumeMounts"]);
    let missing = mounts.difference(&volumes).map(|name| format!("there is no volume {name}"));
    missing.chain(volumes.difference(&mounts).map(|name| format!("nobody uses the volume {name}"))).collect()
}

/// The workloads whose pods have these labels.
fn selected<'a>(labels: &Value, manifests: &'a [Value]) -> Vec<&'a Value> {
    let Some(labels) = labels.as_object() else { return Vec::new() };
    let has_all = |manifest: &&Value| {
        let own = &template(manifest)["metadata"]["labels"];
        own.is_object() && labels.iter().all(|(label, value)| own[label] == *value)
    };
    manifests.iter().filter(has_all).collect()
}

fn faults_of_selector(labels: &Value, manifests: &[Value]) -> Vec<String> {
    match selected(labels, manifests).len() {
        1 => Vec::new(),
        count => vec![format!("selects {count} workloads")],
    }
}

fn faults_of_service(service: &Value, manifests: &[Value]) -> Vec<String> {
    let mut wrong = faults_of_selector(&service["spec"]["selector"], manifests);
    let pods = selected(&service["spec"]["selector"], manifests);
    let known: BTreeSet<&str> =
        pods.iter().flat_map(|workload| ports(&template(workload)["spec"]["containers"][0])).collect();
    for port in service["spec"]["ports"].as_array().into_iter().flatten() {
        let target = text(&port["targetPort"]);
        if !known.contains(target) {
            wrong.push(format!("there is no port {target}"));
        }
    }
    wrong
}

#[tokio::test]
async fn the_chart_makes_manifests_that_kubernetes_takes() -> anyhow::Result<()> {
    let bench = bench!();
    for (values, kinds) in GOOD {
        let rendered = bench.render(values).await?;
        let (faults, manifests) = bench.judge(&rendered).await?;
        ensure!(faults.is_empty(), "{values}\n{}", faults.join("\n"));
        let mut made: Vec<&str> = manifests.iter().map(|manifest| text(&manifest["kind"])).collect();
        made.sort_unstable();
        assert_eq!(made, kinds, "{values}");
        // Clients' addresses reach the workers.
        for service in manifests.iter().filter(|manifest| manifest["spec"]["type"] == "LoadBalancer") {
            assert_eq!(service["spec"]["externalTrafficPolicy"], "Local");
        }
        // No secret stands in a manifest: every one is named.
        let secret = |name: &str| rendered.files.to_string().contains(&format!("name: {name}\\n              value:"));
        ensure!(!secret("POSTERN_PROXY_CLUSTER_SECRET_KEY") && !secret("POSTERN_DATABASE_URL"), "{}", rendered.files);
    }
    // What the values say arrives.
    let all = bench.render(GOOD[1].0).await?.files.to_string();
    for said in [
        "https://demo-postern-control.postern.svc:8443",
        "postern.example.org,192.0.2.1,demo-postern-control.postern.svc",
        "10.0.3.0/24,fd00::/64",
        "loadBalancerClass: \\\"example.org/nlb\\\"",
        "name: POSTERN_SPOOL_LIMIT",
    ] {
        ensure!(all.contains(said), "{said} is not in\n{all}");
    }
    Ok(())
}

#[tokio::test]
async fn the_chart_refuses_values_that_are_wrong_and_says_which() -> anyhow::Result<()> {
    let bench = bench!();
    for (values, told) in WRONG {
        let (faults, _) = bench.judge(&bench.render(&values.replace("REST", REST)).await?).await?;
        ensure!(faults.iter().any(|fault| fault.contains(told)), "{values}: {faults:?}");
    }
    // helm refuses by the templates, too, where there is no schema to look at.
    let refused = bench.render(&format!("workers: {{{REST}, tls: {{certSource: none}}}}")).await?.refused;
    ensure!(refused.contains("prove who it is"), "{refused}");
    Ok(())
}

#[tokio::test]
async fn a_broken_manifest_would_be_found() -> anyhow::Result<()> {
    let bench = bench!();
    let good = bench.render(GOOD[1].0).await?;
    for (from, to, told) in BROKEN {
        let mut files = good.files.clone();
        let files_of = files.as_object_mut().context("no files")?;
        let file =
            files_of.values_mut().find(|file| text(file).contains(from)).with_context(|| format!("no {from:?}"))?;
        *file = json!(text(file).replacen(from, to, 1));
        let broken = Rendered { files, values: good.values.clone(), refused: String::new() };
        let (faults, _) = bench.judge(&broken).await?;
        ensure!(faults.iter().any(|fault| fault.contains(told)), "{from:?} → {to:?}: {faults:?}");
    }
    Ok(())
}

#[test]
fn the_version_of_the_chart_is_that_of_the_workspace() -> anyhow::Result<()> {
    let chart = std::fs::read_to_string(Path::new(CHART).join("Chart.yaml"))?;
    assert!(chart.contains(concat!("\nversion: ", env!("CARGO_PKG_VERSION"), "\n")), "{chart}");
    assert!(chart.contains(concat!("\nappVersion: \"", env!("CARGO_PKG_VERSION"), "\"\n")), "{chart}");
    Ok(())
}
