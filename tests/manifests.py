"""Checks the manifests below examples/ against what their platforms publish, offline, and says what is in them.

    python3 manifests.py kubernetes|ecs|compose DIRECTORY

Kubernetes' manifests by its own schemas, in their newest version and in the oldest that the file is for, and by the
restricted Pod Security profile; those of ECS by the model of its API; those of Compose by its specification. The first
thing wrong ends it with a message. Otherwise tests/manifests.rs reads one line a container and one line a probe, with
tabs between:

    container FILE NAME KIND SECONDS NAME=VALUE ...   KIND: app, sidecar, once; SECONDS until the platform's SIGKILL
    probe     FILE NAME KIND SECONDS COMMAND          KIND: readiness, liveness, startup, health; SECONDS it may take
"""

import json
import re
import sys
from pathlib import Path

# The oldest Kubernetes that a file is for, where it is not OLDEST.
OLDEST = "1.25"
OLDEST_FOR = {"job.yaml": "1.35", "sidecar.yaml": "1.29"}


def say(*words):
    print(*words, sep="\t")


def wrong(file, what):
    sys.exit(f"{file.name}: {what}")


def kubernetes(directory):
    import kubernetes_validate
    import yaml

    for file in sorted(directory.glob("*.yaml")):
        for resource in yaml.safe_load_all(file.read_text()):
            for version in kubernetes_validate.latest_version(), OLDEST_FOR.get(file.name, OLDEST):
                try:
                    kubernetes_validate.validate(resource, version, strict=True)
                except kubernetes_validate.ValidationError as error:
                    where = ".".join(str(step) for step in error.path)
                    wrong(file, f"Kubernetes {version}: {where}: {error.message}")
            if resource["kind"] == "Service":
                deployment = yaml.safe_load((directory / "deployment.yaml").read_text())
                selected(file, resource["spec"], deployment["spec"]["template"])
            else:
                pod(file, resource["spec"].get("template", resource)["spec"])


def selected(file, service, template):
    """A Service that selects nothing, or a port that nobody has, is valid, and serves nobody."""
    if not service["selector"].items() <= template["metadata"]["labels"].items():
        wrong(file, "it does not select the pods of the deployment")
    ports = {port["name"] for container in template["spec"]["containers"] for port in container["ports"]}
    if not {port["targetPort"] for port in service["ports"]} <= ports:
        wrong(file, f"the pods of the deployment have only the ports {', '.join(ports)}")


def pod(file, spec):
    grace = spec.get("terminationGracePeriodSeconds", 30)
    restricted_pod(file, spec)
    for container in spec.get("initContainers", []):
        kind = "sidecar" if container.get("restartPolicy") == "Always" else "once"
        kubernetes_container(file, container, kind, grace)
    for container in spec["containers"]:
        kubernetes_container(file, container, "once" if spec.get("restartPolicy") == "Never" else "app", grace)


def kubernetes_container(file, container, kind, grace):
    name = container["name"]
    restricted_container(file, container)
    environment = [f"{variable['name']}={variable['value']}" for variable in container.get("env", [])]
    say("container", file.name, name, kind, grace, *environment)
    for probe in "readiness", "liveness", "startup":
        if f"{probe}Probe" in container:
            check = container[f"{probe}Probe"]
            say("probe", file.name, name, probe, check.get("timeoutSeconds", 1), *check["exec"]["command"])


def restricted_pod(file, spec):
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/, profile restricted."""
    context = spec.get("securityContext", {})
    required = {
        "runAsNonRoot": context.get("runAsNonRoot") is True,
        "runAsUser": context.get("runAsUser") != 0,
        "seccompProfile": context.get("seccompProfile", {}).get("type") in ("RuntimeDefault", "Localhost"),
    }
    shared = [name for name in ("hostNetwork", "hostPID", "hostIPC") if spec.get(name)]
    complain(file, "the pod", required, shared)


def restricted_container(file, container):
    context = container.get("securityContext", {})
    required = {
        "allowPrivilegeEscalation": context.get("allowPrivilegeEscalation") is False,
        "capabilities.drop": "ALL" in context.get("capabilities", {}).get("drop", []),
        # No part of the profile, but of the examples.
        "readOnlyRootFilesystem": context.get("readOnlyRootFilesystem") is True,
    }
    # What would take back the pod's settings, or the profile's.
    forbidden = [name for name in ("privileged", "runAsNonRoot", "runAsUser", "seccompProfile") if name in context]
    forbidden += ["capabilities.add"] if "add" in context.get("capabilities", {}) else []
    complain(file, container["name"], required, forbidden)


def complain(file, where, required, forbidden):
    lacking = [name for name, fulfilled in required.items() if not fulfilled]
    if lacking or forbidden:
        wrong(file, f"{where} is not restricted: {', '.join(lacking + forbidden)}")


def ecs(directory):
    import botocore.session

    model = botocore.session.get_session().get_service_model("ecs")
    task = ecs_input(directory / "task-definition.json", model, "RegisterTaskDefinition")
    service = ecs_input(directory / "service.json", model, "CreateService")
    file = directory / "task-definition.json"
    ports = set()
    for container in task["containerDefinitions"]:
        name, check = container["name"], container["healthCheck"]
        ports.update((name, mapping["containerPort"]) for mapping in container["portMappings"])
        environment = [f"{variable['name']}={variable['value']}" for variable in container["environment"]]
        say("container", file.name, name, "app", container.get("stopTimeout", 30), *environment)
        say("probe", file.name, name, "health", check.get("timeout", 5), *after_cmd(file, check["command"]))
    for balancer in service["loadBalancers"]:
        if (balancer["containerName"], balancer["containerPort"]) not in ports:
            wrong(directory / "service.json", "the task definition has no such container, or it no such port")


def ecs_input(file, model, operation):
    """The document, if it is valid as the input of this operation."""
    from botocore.validate import ParamValidator

    document, shape = json.loads(file.read_text()), model.operation_model(operation).input_shape
    report = ParamValidator().validate(document, shape)
    if report.has_errors():
        wrong(file, report.generate_report())
    outside_of_enums(file, document, shape, shape.name)
    return document


def outside_of_enums(file, value, shape, where):
    """botocore leaves the words of enumerations to the service."""
    if shape.type_name == "structure":
        for name, member in value.items():
            outside_of_enums(file, member, shape.members[name], f"{where}.{name}")
    elif shape.type_name == "list":
        for member in value:
            outside_of_enums(file, member, shape.member, where)
    elif shape.type_name == "string" and shape.enum and value not in shape.enum:
        wrong(file, f"{where}: {value} is none of {', '.join(shape.enum)}")


def after_cmd(file, command):
    """The words of a health check, which is to be run without a shell: the image need not have one."""
    if command[0] != "CMD":
        wrong(file, f"{command[0]} in place of CMD")
    return command[1:]


def compose(directory):
    from compose_spec import PyCompose, parse_duration

    file = directory / "compose.yaml"
    # Compose puts in variables before it looks at anything: here none is set, so each has its default.
    text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", file.read_text())
    try:
        services = PyCompose.from_yaml(text).to_dict()["services"]
    except ValueError as error:
        wrong(file, error)
    for name, service in services.items():
        for other, dependency in service.get("depends_on", {}).items():
            if other not in services:
                wrong(file, f"{name} depends on {other}, which is not there")
            if dependency["condition"] == "service_healthy" and "healthcheck" not in services[other]:
                wrong(file, f"{name} waits for {other} to be healthy, which has no healthcheck")
        environment = [f"{variable}={value}" for variable, value in service.get("environment", {}).items()]
        seconds = parse_duration(service.get("stop_grace_period", "10s"))
        say("container", file.name, name, "app" if "restart" in service else "once", seconds, *environment)
        if "healthcheck" in service:
            check = service["healthcheck"]
            timeout = parse_duration(check.get("timeout", "30s"))
            say("probe", file.name, name, "health", timeout, *after_cmd(file, check["test"]))


{"kubernetes": kubernetes, "ecs": ecs, "compose": compose}[sys.argv[1]](Path(sys.argv[2]))
