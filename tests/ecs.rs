//! docs/ecs.md: its commands and its hook, with Amazon's own command line. The account is a stand-in for AWS (moto), which
//! knows subnets, target groups and services, and refuses what is not there.

#![allow(clippy::disallowed_methods, reason = "the environment and the threads of the tests")]

use crate::common::{Answer, Guard, Setup, begin, blocks, child, in_path, program, skipped};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::thread;

const GUIDE: &str = "docs/ecs.md";

/// An account with a network, a cluster and a target group, and nothing else in it.
struct Account {
    /// The stand-in; guard runs it, and ends it with the test.
    _server: Guard,
    url: String,
    subnets: [String; 2],
    security_group: String,
    target_group: String,
}

/// None where the stand-in cannot be had.
fn account() -> Option<Account> {
    if let Some(program) = ["moto_server", "aws", "jq", "curl"].into_iter().find(|program| in_path(program).is_none()) {
        skipped(&format!("there is no {program}; tests/manifests.txt and Debian's jq and curl are needed"));
        return None;
    }
    let mut server = with_path(child()).app(["moto_server", "-H", "127.0.0.1", "-p", "0"]).start();
    let line = server.log_line("where it listens", |line| line.contains(" * Running on http://127.0.0.1:"));
    let url = line.split_once("Running on ").expect("as it was looked for").1.trim().to_owned();
    let mut account = Account {
        _server: server,
        url,
        subnets: Default::default(),
        security_group: String::new(),
        target_group: String::new(),
    };
    account.run("aws ecs create-cluster --cluster-name default");
    let network = account.id("ec2 create-vpc --cidr-block 10.0.0.0/16", "Vpc.VpcId");
    account.subnets = [1, 2].map(|number| {
        let subnet = format!("ec2 create-subnet --vpc-id {network} --cidr-block 10.0.{number}.0/24");
        account.id(&subnet, "Subnet.SubnetId")
    });
    let group = format!("ec2 create-security-group --group-name app --description app --vpc-id {network}");
    account.security_group = account.id(&group, "GroupId");
    let group =
        format!("elbv2 create-target-group --name app --protocol HTTP --port 8080 --target-type ip --vpc-id {network}");
    account.target_group = account.id(&group, "TargetGroups[0].TargetGroupArn");
    Some(account)
}

fn with_path(setup: Setup) -> Setup {
    setup.env("PATH", std::env::var_os("PATH").unwrap_or_default())
}

impl Account {
    /// What a client of this account has in its environment.
    fn environment(&self) -> [(&'static str, &str); 4] {
        let (key, secret) = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY");
        [("AWS_ENDPOINT_URL", &self.url), ("AWS_DEFAULT_REGION", "eu-central-1"), (key, "key"), (secret, "secret")]
    }

    fn run_in(&self, directory: &Path, line: &str) -> String {
        let mut command = Command::new("sh");
        command.args(["-c", line]).current_dir(directory).envs(self.environment());
        let answer = Answer::of(begin(&mut command));
        assert_eq!(answer.code, 0, "{line}: {answer:?}");
        answer.out.trim().to_owned()
    }

    fn run(&self, line: &str) -> String {
        self.run_in(Path::new("/"), line)
    }

    /// One value of an answer.
    fn id(&self, words: &str, query: &str) -> String {
        self.run(&format!("aws {words} --output text --query '{query}'"))
    }

    /// The state of the target group's one target, or nothing where it has none.
    fn target(&self) -> String {
        let health = format!("elbv2 describe-target-health --target-group-arn {}", self.target_group);
        self.id(&health, "TargetHealthDescriptions[].TargetHealth.State")
    }
}

/// The reader puts in an account, subnets, a security group and a target group; nothing else of the files changes.
#[test]
fn the_commands_of_the_guide_make_the_service() {
    let Some(account) = account() else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let examples = directory.path().join("examples/ecs");
    fs::create_dir_all(&examples).expect("a directory");
    for name in ["task-definition.json", "service.json"] {
        let mut text = fs::read_to_string(blocks::root().join("examples/ecs").join(name)).expect("an example");
        let own = [
            ("subnet-0123456789abcdef0", account.subnets[0].as_str()),
            ("subnet-0fedcba9876543210", &account.subnets[1]),
            ("sg-0123456789abcdef0", &account.security_group),
            (
                "arn:aws:elasticloadbalancing:eu-central-1:111122223333:targetgroup/app/0123456789abcdef",
                &account.target_group,
            ),
        ];
        for (placeholder, id) in own {
            assert!(text.contains(placeholder) || name == "task-definition.json", "{name} has no {placeholder}");
            text = text.replace(placeholder, id);
        }
        fs::write(examples.join(name), text).expect("a file");
    }
    let commands = blocks::block(GUIDE, "aws ecs register-task-definition");
    let answers: Vec<String> =
        commands.commands().iter().map(|command| account.run_in(directory.path(), command)).collect();
    assert_eq!(answers.len(), 2);

    let service = "ecs describe-services --services app";
    assert_eq!(account.id(service, "services[0].[status,desiredCount]"), "ACTIVE\t2");
    assert!(account.id(service, "services[0].taskDefinition").ends_with(":task-definition/app:1"));
    let task = "ecs describe-task-definition --task-definition app";
    assert_eq!(account.id(task, "taskDefinition.containerDefinitions[0].stopTimeout"), "60");
    let variable = "taskDefinition.containerDefinitions[0].environment[?name==`GUARD_STOP_TIMEOUT`].value";
    assert_eq!(account.id(task, variable), "55s");
}

/// One answer to one request, as the agent of ECS tells a task its address.
fn metadata(answer: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("it is bound");
    thread::spawn(move || {
        let (mut client, _) = listener.accept().expect("a client");
        let _ = client.read(&mut [0; 1024]);
        let _ = write!(client, "HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n{answer}", answer.len());
    });
    format!("http://{address}/v4")
}

#[test]
fn the_hook_of_the_guide_takes_the_task_out() {
    let Some(account) = account() else { return };
    let group = &account.target_group;
    account.run(&format!("aws elbv2 register-targets --target-group-arn {group} --targets Id=10.0.1.7,Port=8080"));
    assert_ne!(account.target(), "");

    let directory = tempfile::tempdir().expect("a directory");
    let hook = program(directory.path(), "leave", &blocks::block(GUIDE, "#!/bin/sh").text, 0o755);
    let mut guard = with_path(child()).env("GUARD_PRE_STOP", hook).env("TARGET_GROUP", group);
    for (name, value) in account.environment() {
        guard = guard.env(name, value);
    }
    let address = metadata(r#"{"Networks":[{"NetworkMode":"awsvpc","IPv4Addresses":["10.0.1.7"]}]}"#);
    let mut guard = guard.env("ECS_CONTAINER_METADATA_URI_V4", address).fixture("serve").start();
    guard.line("ready");
    guard.signal(nix::libc::SIGTERM);
    guard.line("leaving, 25 s left");
    assert_eq!(guard.code(), 143, "{}", guard.transcript());
    assert_eq!(account.target(), "", "{}", guard.transcript());
}
