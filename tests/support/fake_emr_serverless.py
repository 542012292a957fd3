"""EMR Serverless as far as the launcher's operator uses it."""

from typing import Any

from botocore.exceptions import ClientError


class Emr:
    """EMR Serverless as far as the operator uses it: jobs by token, each in a state that a test sets."""

    def __init__(self, new_state: str) -> None:
        self.new_state, self.states, self.of_token = new_state, dict[str, str](), dict[str, str]()
        self.requests, self.cancelled = list[dict[str, Any]](), list[str]()

    def get_application(self, applicationId: str) -> dict[str, Any]:
        return {"application": {"state": "STARTED"}}

    def start_job_run(self, **request: Any) -> dict[str, Any]:
        of_token = [one for one in self.requests if one["clientToken"] == request["clientToken"]]
        if of_token and of_token[0] != request:
            raise ClientError({"Error": {"Code": "ConflictException", "Message": "another request"}}, "StartJobRun")
        self.requests.append(request)
        job = self.of_token.setdefault(request["clientToken"], f"job-{len(self.of_token) + 1}")
        self.states.setdefault(job, self.new_state)
        return {"ResponseMetadata": {"HTTPStatusCode": 200}, "jobRunId": job}

    def get_paginator(self, operation: str) -> Any:
        runs = [{"id": self.of_token[one["clientToken"]], "name": one["name"]} for one in self.requests]
        return type("Pages", (), {"paginate": lambda self, applicationId: [{"jobRuns": []}, {"jobRuns": runs}]})()

    def get_job_run(self, applicationId: str, jobRunId: str) -> dict[str, Any]:
        if jobRunId not in self.states:
            raise ClientError({"Error": {"Code": "ResourceNotFoundException", "Message": "no such job"}}, "GetJobRun")
        return {"jobRun": {"state": self.states[jobRunId], "stateDetails": f"details of {jobRunId}"}}

    def cancel_job_run(self, applicationId: str, jobRunId: str) -> dict[str, Any]:
        self.cancelled.append(jobRunId)  # and it runs on for a moment
        return {"ResponseMetadata": {"HTTPStatusCode": 200}}
