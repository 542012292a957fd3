"""Who may call the stand-ins: whoever has their keys, and no web page, whatever it tries."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from moto.server import ThreadedMotoServer
from orchard_sandbox.s3.landing import KEY, REGION, aws_client, queue_url, s3_environment
from support import databricks_stand_in as databricks
from support import emr_stand_in as emr
from support.browser import EVIL_NAME, serving_page, shown

SECRET = "thing"
# What a page tries; each answer that it can read stands in its text.
ATTACK = """<body><script>
const servers = SERVERS, forged = "AWS4-HMAC-SHA256 Credential=orchard/20260101/us-east-1/elasticmapreduce/aws4_request, " +
  "SignedHeaders=host, Signature=" + "0".repeat(64)
const attacks = {
  list: server => fetch(server + "/landing?list-type=2"),
  upload: server => fetch(server + "/landing/images/evil.jpg", {method: "PUT", body: "evil"}),
  upload_unseen: server => fetch(server + "/landing", {method: "POST", mode: "no-cors", body: form()}),
  reset: server => fetch(server + "/moto-api/reset", {method: "POST", mode: "no-cors"}),
  run_code: server => fetch(server + "/", {method: "POST", body: "{}", headers:
    {"X-Amz-Target": "ElasticMapReduce.ListClusters", "Authorization": forged, "Content-Type": "application/x-amz-json-1.1"}}),
  runs: server => fetch(server + "/api/2.2/jobs/runs/get?run_id=1010", {headers: {"Authorization": "Bearer any"}}),
}
function form() { const made = new FormData(); made.append("key", "images/evil.jpg"); made.append("file", "evil"); return made }
async function attempt(name, server) {
  try { const answer = await attacks[name](server); return answer.type == "opaque" ? "unseen" : "read " + answer.status }
  catch (error) { return "blocked" }
}
async function main() {
  const told = {}
  for (const server in servers) for (const name in attacks) told[server + " " + name] = await attempt(name, servers[server])
  document.body.innerText = JSON.stringify(told)
}
main()
</script>"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[emr.Server]:
    with emr.serving(tmp_path_factory.mktemp("aws")) as server:
        server.s3.put_object(Bucket="landing", Key="images/mine.jpg", Body=b"mine")
        yield server


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[databricks.Server]:
    folder = tmp_path_factory.mktemp("databricks")
    with databricks.serving(folder / "state", folder / "objects", "--without-spark") as server:
        yield server


@pytest.fixture(scope="module")
def plain_moto() -> Iterator[str]:
    """An open server, which shows that the attack is one."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    aws_client("s3", s3_environment(f"http://{host}:{port}", "any")).create_bucket(Bucket="landing")
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="module")
def told(
    server: emr.Server, workspace: databricks.Server, plain_moto: str, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """What the attacking page could do, by server and attack."""
    servers = {"plain": plain_moto, "aws": server.address, "databricks": workspace.address}
    with serving_page(ATTACK.replace("SERVERS", json.dumps(servers))) as port:
        text = shown(f"http://127.0.0.1:{port}/", tmp_path_factory.mktemp("browser"))
    found = re.search(r"\{.*\}", text)
    assert found, text
    answers: dict[str, str] = json.loads(found.group())
    return answers


def test_the_page_can_attack_an_open_server(told: dict[str, str]) -> None:
    assert (told["plain list"], told["plain upload"], told["plain reset"]) == ("read 200", "read 200", "unseen")


@pytest.mark.parametrize("name", ["aws", "databricks"])
def test_a_page_reads_nothing_from_a_stand_in(name: str, told: dict[str, str]) -> None:
    answers = {attack: answer for attack, answer in told.items() if attack.startswith(f"{name} ")}
    unseen = {f"{name} upload_unseen", f"{name} reset"}
    assert {attack: answer for attack, answer in answers.items() if attack not in unseen} == dict.fromkeys(
        answers.keys() - unseen, "blocked"
    )


@pytest.mark.usefixtures("told")
def test_a_page_changes_nothing_in_a_stand_in(server: emr.Server) -> None:
    found = server.s3.list_objects_v2(Bucket="landing")["Contents"]
    assert [item["Key"] for item in found] == ["images/mine.jpg"]


def test_a_page_under_another_name_reads_nothing(server: emr.Server, tmp_path: Path) -> None:
    port = server.address.rpartition(":")[2]
    assert f"Call this server as 127.0.0.1:{port}" in shown(f"http://{EVIL_NAME}:{port}/landing?list-type=2", tmp_path)


@pytest.mark.parametrize(
    "change",
    [{"headers": {"Origin": "null"}}, {"headers": {"Host": "evil.test"}}, {"method": "OPTIONS"}],
    ids=["origin", "host", "options"],
)
def test_what_only_pages_send_is_refused_with_a_good_token(change: dict[str, Any], workspace: databricks.Server) -> None:
    headers = {"Authorization": f"Bearer {databricks.TOKEN}", **change.get("headers", {})}
    url = f"{workspace.address}/api/2.2/jobs/runs/get?run_id=7"
    answer = requests.request(change.get("method", "GET"), url, headers=headers, timeout=10)
    assert answer.status_code == 403


def test_no_answer_allows_a_page_to_read_it(server: emr.Server) -> None:
    answer = server.s3.list_objects_v2(Bucket="landing")["ResponseMetadata"]["HTTPHeaders"]
    assert [name for name in answer if name.startswith("access-control")] == []


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "other"}, "SignatureDoesNotMatch"),
        ({"AWS_ACCESS_KEY_ID": "other"}, "InvalidAccessKeyId"),
    ],
)
@pytest.mark.parametrize("service", ["s3", "sqs", "emr", "emr-serverless"])
def test_a_call_with_another_key_is_refused(change: dict[str, str], code: str, service: str, server: emr.Server) -> None:
    client = aws_client(service, s3_environment(server.address, SECRET) | change)
    call = {"s3": "list_buckets", "sqs": "list_queues", "emr": "list_clusters", "emr-serverless": "list_applications"}
    with pytest.raises(ClientError, match=code):
        getattr(client, call[service])()


def test_every_service_is_there_for_the_key(server: emr.Server) -> None:
    told = s3_environment(server.address, SECRET)
    assert "landing" in [bucket["Name"] for bucket in aws_client("s3", told).list_buckets()["Buckets"]]
    assert aws_client("sqs", told).list_queues()["QueueUrls"] == [queue_url(server.address)]
    assert aws_client("emr", told).list_clusters()["Clusters"] == []
    assert aws_client("emr-serverless", told).list_applications()["applications"] == []


def test_an_unsigned_call_is_refused(server: emr.Server) -> None:
    answer = requests.get(f"{server.address}/landing?list-type=2", timeout=10)
    assert (answer.status_code, "AccessDenied" in answer.text) == (403, True)


@pytest.mark.parametrize(
    ("path", "service"), [("/moto-api/data.json", "s3"), ("/moto-api/reset", "s3"), ("/", "iam"), ("/latest/meta-data/", "s3")]
)
def test_what_else_moto_serves_is_refused_to_the_key(path: str, service: str, server: emr.Server) -> None:
    url = f"{server.address}{path}"
    request = AWSRequest("POST", url, data=b"")
    SigV4Auth(Credentials(KEY, SECRET), service, REGION).add_auth(request)
    answer = requests.post(url, headers=dict(request.headers), timeout=10)
    assert (answer.status_code, "is not served here" in answer.text) == (403, True)
