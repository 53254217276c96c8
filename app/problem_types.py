"""The types of problems. Their names are part of the API: new ones may be added, existing ones never change."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ProblemType:
    """One type of problem: its name (the last part of its URI), status, title, and a text with the solution."""

    name: str
    status: int
    title: str
    text: str

    @property
    def uri(self) -> str:
        """The problem's `type`, relative to the service."""
        return f"/problems/{self.name}"

    def page(self) -> str:
        """The text served at its URI, the same as in docs/problems.md."""
        return f"## {self.name}\n\n**{self.status} {self.title}.** {self.text}\n"


# ordered by status; docs/problems.md has the same order
_TYPES = (
    ProblemType(
        "malformed-request",
        400,
        "Malformed request",
        "The request cannot be parsed, for example a multipart body without a boundary. Correct it and send it again.",
    ),
    ProblemType(
        "chunks-too-small",
        400,
        "Chunks too small",
        "The body has `Transfer-Encoding: chunked` and more than 512 chunks with less than 64 bytes on average, or "
        "its chunks have long extensions. Send larger chunks, or the body at once with `Content-Length`.",
    ),
    ProblemType(
        "unauthorized",
        401,
        "Unauthorized",
        "The service requires an API key, and the request has none or a wrong one. "
        "Send `Authorization: Bearer KEY` or `X-API-Key: KEY`; people sign in to the studio.",
    ),
    ProblemType(
        "key-expired",
        401,
        "Key expired",
        "The API key of the request has expired. Ask the operator for a new one (`strata keys create`).",
    ),
    ProblemType(
        "key-revoked",
        401,
        "Key revoked",
        "The API key of the request was revoked. Ask the operator for a new one (`strata keys create`).",
    ),
    ProblemType(
        "missing-scope",
        403,
        "Missing scope",
        "The API key is valid, but may not do this; the detail names the scope that is needed. Use a key with this "
        "scope (`submit`, `read`, `review`, or `admin`, which includes all).",
    ),
    ProblemType(
        "wrong-csrf-token",
        403,
        "Wrong CSRF token",
        "A request that is to change something has the cookie of a session, and not the session's token in the header "
        "`X-CSRF-Token`. `GET /v1/session` tells the token. Programs send a key in a header, and need no token.",
    ),
    ProblemType(
        "link-invalid",
        403,
        "Link invalid",
        "A part of a signed link to an image was changed or is missing, or the key that has made the link was revoked, "
        "has expired or is not there any more. Ask for a new one: `POST /v1/records/{job_id}/{key}/links`.",
    ),
    ProblemType(
        "link-expired",
        403,
        "Link expired",
        "A signed link to an image is right, and its time is over. Ask for a new one: "
        "`POST /v1/records/{job_id}/{key}/links`.",
    ),
    ProblemType(
        "origin-not-allowed",
        403,
        "Origin not allowed",
        "A browser sent this request for a page of another origin. Open the page of the service itself; or the "
        "operator adds the page's origin to `STRATA_CORS_ORIGINS`. A proxy in front must pass `Host`.",
    ),
    ProblemType("not-found", 404, "Not found", "Nothing exists at this address. `/docs` lists all addresses."),
    ProblemType(
        "unknown-snapshot",
        404,
        "Unknown snapshot",
        "No snapshot of the key's tenant has this name or id. The operator is told some names; `strata snapshot list` "
        "lists all.",
    ),
    ProblemType(
        "unknown-job",
        404,
        "Unknown job",
        "No job of the key's tenant has this id. `GET /v1/jobs` lists its jobs; without keys there is one tenant.",
    ),
    ProblemType(
        "unknown-record",
        404,
        "Unknown record",
        "The job has no image with this key, or the image has not been described yet; the detail says which.",
    ),
    ProblemType(
        "no-webhook",
        404,
        "No webhook",
        "The job was submitted without a webhook, so that its end is told to nobody. Submit it with `webhook`.",
    ),
    ProblemType(
        "no-estimate",
        404,
        "No estimate",
        "The job describes all its images. Only a job of a sample gives an estimate: `POST /v1/batches/estimate`.",
    ),
    ProblemType(
        "image-unavailable",
        404,
        "Image unavailable",
        "The record exists, but the bytes of its image cannot be read any more, because a shard was moved or deleted; "
        "or it has more than 40 MiB and more than `STRATA_MAX_BODY_BYTES`; or its metadata cannot be removed, because "
        "it is damaged or no image. Such images are not shown.",
    ),
    ProblemType(
        "method-not-allowed",
        405,
        "Method not allowed",
        "The address exists, but does not support this method. The header `Allow` lists the methods that it supports.",
    ),
    ProblemType(
        "request-too-slow",
        408,
        "Request too slow",
        "The head or the body of the request did not arrive in time. The head must arrive within 15 seconds, a body "
        "within 20 seconds and one second more for each 16 KiB. Send the request again over a new connection.",
    ),
    ProblemType(
        "idempotency-key-in-flight",
        409,
        "A request with this Idempotency-Key is in flight",
        "The first request with this key is still being processed. Send the request again after `Retry-After` seconds "
        "to get its response.",
    ),
    ProblemType(
        "job-not-finished",
        409,
        "Job not finished",
        "Only a job that is completed or failed can be retried. Wait until it has ended. Submit a cancelled job again: "
        "its results so far are reused.",
    ),
    ProblemType(
        "job-not-ended",
        409,
        "Job not ended",
        "Only a job that has ended can be deleted. Cancel it first, and wait until it has ended.",
    ),
    ProblemType(
        "image-removed",
        410,
        "Image removed",
        "The uploaded image of this job was removed; `STRATA_UPLOAD_DAYS` says for how long uploads are kept. The "
        "record is still there. Send the image again to describe it again.",
    ),
    ProblemType(
        "part-lost",
        410,
        "Part lost",
        "A file of results of a cancelled or failed job is damaged or missing: the disk or the network has changed or "
        "lost it. Submit the shards of the job again, or retry it if it has failed: what is missing is computed again, "
        "and is then a result of this job too.",
    ),
    ProblemType(
        "body-too-large",
        413,
        "Body too large",
        "The body of the request is larger than `STRATA_MAX_BODY_BYTES` (20 MiB if not set). "
        "Send a smaller image, or put many images into a shard and submit the shard.",
    ),
    ProblemType(
        "too-many-shards",
        413,
        "Too many shards",
        "One submission may name at most 100,000 shards, whose names have at most 16 Mi characters together, and 100 "
        "lists (`@FILE`) of at most 16 MiB together. Finding them may list at most 1,000,000 files and folders, and "
        "take at most 30 seconds. Send several submissions, or a narrower glob; the detail says what was too much.",
    ),
    ProblemType(
        "unsupported-media-type",
        415,
        "Unsupported media type",
        "Send the image as `multipart/form-data` with a field `file`, or `application/json` with `image_url` or "
        "`image_base64`.",
    ),
    ProblemType(
        "range-not-satisfiable",
        416,
        "Range not satisfiable",
        "Of the file that is asked for there are no such bytes: the header `Range` begins behind its end. "
        "`Content-Range` says how many there are; send the request without `Range` for all of them.",
    ),
    ProblemType(
        "host-not-allowed",
        421,
        "Host not allowed",
        "The header `Host` names neither an IP address nor localhost nor a host that the service was told to serve, as "
        "a request of a web page with a changed address does (DNS rebinding). Call the service by its address, or the "
        "operator adds the name to `STRATA_ALLOWED_HOSTS`.",
    ),
    ProblemType(
        "invalid-request",
        422,
        "Invalid request",
        "The request can be parsed, but it is not valid: it has no image or more than one, malformed JSON, JSON with "
        "more than 32 levels, 1,000 keys or 120,000 values, more than 64 parameters in the URL, a parameter there that "
        "the route does not have or that is given twice and takes one value, a missing, unknown or wrong field, or an "
        "invalid cursor. `errors` lists every location and what is wrong there, with the nearest name of an unknown "
        "parameter.",
    ),
    ProblemType(
        "uploads-missing",
        422,
        "Uploads missing",
        "The batch names images that were never sent, or that were removed since (`STRATA_UPLOAD_DAYS`). `errors` has "
        "the SHA-256 of some. `POST /v1/uploads` says which are missing; send them, then submit the batch again.",
    ),
    ProblemType(
        "invalid-image",
        422,
        "Invalid image",
        "The bytes cannot be decoded. The detail begins with the reason, which `errors` has as `type`, and which a "
        "failed row has as its error type: `empty`; `not_an_image` (another kind of file); `truncated` (cut off or "
        "damaged); `unsupported` (a format or variant that is not decoded); `too_many_pixels` (more than "
        "`STRATA_MAX_PIXELS`); `too_costly` (decoding takes more than 448 MiB of memory, or more processor time than "
        "an image of its size may; or a JPEG has too many scans, or a TIFF too many tiles or tags); "
        "`decoder_crashed` (the decoder crashed on it twice).",
    ),
    ProblemType(
        "refused-url",
        422,
        "Refused URL",
        "`image_url`, as the address of a webhook, must be http or https with port 80 or 443, without a user name, and "
        "all addresses of its host must be public (this protects the network in which the service runs); so must those "
        "of each redirect. `STRATA_PRIVATE_URLS=true` allows private addresses, `STRATA_URL_PORTS` other ports, and "
        "`STRATA_URL_HOSTS` (for webhooks `STRATA_WEBHOOK_HOSTS`) "
        "only some hosts.",
    ),
    ProblemType(
        "image-not-fetched",
        422,
        "Image not fetched",
        "`image_url` could not be fetched: its server sent no successful response within 10 seconds, sent "
        "more than `STRATA_MAX_BODY_BYTES` or a compressed body, or redirected more than 3 times.",
    ),
    ProblemType(
        "unknown-profile",
        422,
        "Unknown profile",
        "No profile has this name. The detail lists the names of all profiles.",
    ),
    ProblemType(
        "invalid-profile",
        422,
        "Invalid profile",
        "The profile's file has errors: it names a key, stage, back end or prompt that does not exist, has a value out "
        "of range, or has no stage that another one needs. `errors` lists every error with its key and what was "
        "probably meant. The operator of the service has to correct the file; `strata profiles check NAME` checks it.",
    ),
    ProblemType(
        "invalid-shards",
        422,
        "Invalid shards",
        "A shard's path or URI, a range, a glob or a list (`@FILE`) of shards cannot be parsed or listed. A range has "
        "the form `{00000..00331}`, and a pattern at most 4,096 characters. Lines of a list are told by their numbers.",
    ),
    ProblemType(
        "shard-outside-roots",
        422,
        "Shard outside the allowed roots",
        "The service reads shards only below the folders and buckets in `STRATA_SHARD_ROOTS`: if it is not set, in the "
        "folders `shards` and `samples` of the folder that the service was started in.",
    ),
    ProblemType(
        "shard-not-found",
        422,
        "Shard not found",
        "Local shards or lists do not exist, or a glob matches nothing; `errors` lists the first of them.",
    ),
    ProblemType(
        "idempotency-key-reused",
        422,
        "Idempotency-Key used for another body",
        "A request with this key but another body was answered in the last 24 hours. Use a new key for a new request.",
    ),
    ProblemType(
        "judgment-id-reused",
        422,
        "The id of a judgment used for another one",
        "A judgment of the same job has this id, and says something else. Make a new id for each judgment, and send "
        "the same id only to send the same judgment again. To change a judgment, send a new one that supersedes it.",
    ),
    ProblemType(
        "too-many-streams",
        429,
        "Too many streams",
        "As many streams of `/events` are open as the service takes in all, or for one caller. Close some of them, or "
        "ask for the job itself from time to time. Send the request again after `Retry-After` seconds.",
    ),
    ProblemType(
        "too-many-sign-ins",
        429,
        "Too many sign-ins",
        "Several wrong keys in a row were given at the sign-in from one network. After the fifth the next attempt has "
        "to wait a second, and after each further one twice as long, at most a minute. Try again after `Retry-After` "
        "seconds.",
    ),
    ProblemType(
        "share-used",
        429,
        "Your share of the queue is used",
        "So much of what you have sent has not been described yet that no more is taken: one caller may use "
        "`STRATA_CALLER_SHARE` of `STRATA_QUEUE_IMAGES`, `STRATA_QUEUE_JOBS` and `STRATA_QUEUE_SHARDS`. A caller is an "
        "API key and an address; a key may have a smaller share (`--chunks-queued`), for all its addresses. Nothing of "
        "the request was kept. Send it again after `Retry-After` seconds, which follow from how much was described in "
        "the last minute.",
    ),
    ProblemType(
        "quota-exceeded",
        429,
        "Quota exceeded",
        "The API key has used what it may in this time: requests a minute, images a day, or bytes stored; the detail "
        "says which, and the header `RateLimit` how much is left. Nothing of the request was kept or counted. Send it "
        "again after `Retry-After` seconds; of stored bytes, delete jobs or wait until uploads are removed "
        "(`STRATA_UPLOAD_DAYS`). The operator can raise quotas: `strata keys limit`.",
    ),
    ProblemType(
        "headers-too-large",
        431,
        "Headers too large",
        "The request line and the headers have more than 16 KiB, or there are more than 100 headers. Send fewer or "
        "shorter ones.",
    ),
    ProblemType(
        "internal-error",
        500,
        "Internal error",
        "An error in the service itself. Its log has the details; please report them.",
    ),
    ProblemType(
        "damaged-file",
        500,
        "Damaged file",
        "A file of a job in the store is damaged, so that what is asked for is not known; the detail names the file. "
        "Other jobs are not affected. If it is `end.json` or `shards.json`, a retry of the job writes it anew.",
    ),
    ProblemType(
        "part-broken",
        503,
        "Part broken",
        "A file of results is damaged or missing: the disk or the network has changed or lost it. A damaged file is "
        "kept in the store's folder `broken`, and its images are computed again. Send the request again after "
        "`Retry-After` seconds; the job runs until then. `strata verify` checks all files of a job.",
    ),
    ProblemType(
        "redis-unavailable",
        503,
        "Redis unavailable",
        "Redis cannot be reached. Nothing is lost, and the service recovers by itself when Redis is available again. "
        "Send the request again after `Retry-After` seconds.",
    ),
    ProblemType(
        "too-many-connections",
        503,
        "Too many connections",
        "As many connections are open as the service takes, and it works for all of them. Nothing of the request was "
        "read. Close connections that are not needed, and send the request again after `Retry-After` seconds.",
    ),
    ProblemType(
        "too-busy",
        503,
        "Too busy",
        "So many bodies of requests are in memory, so many images wait to be decoded or are being fetched, or so many "
        "submissions wait for their shards to be found, that no more are taken; or the processes "
        "that decode are ended from outside, for example for lack of memory. Nothing of the request was kept. "
        "Send it again after `Retry-After` seconds.",
    ),
    ProblemType(
        "queue-full",
        503,
        "Queue full",
        "So much of what all callers have sent has not been described yet that no more is taken; "
        "`STRATA_QUEUE_IMAGES`, `STRATA_QUEUE_JOBS` and `STRATA_QUEUE_SHARDS` are the limits. Nothing of the request "
        "was kept. Send it again after `Retry-After` seconds, which follow from how much was described in the last "
        "minute.",
    ),
    ProblemType(
        "search-not-ready",
        503,
        "Search not ready",
        "The service has not listed its store yet, so that it is not known what there is to be searched. Send the "
        "request again after `Retry-After` seconds.",
    ),
    ProblemType(
        "search-stopped",
        503,
        "Search stopped",
        "The search took more than 10 seconds or more memory than it may. Narrow it: search one job or one snapshot, "
        "or give more conditions. Many searches at a time make each of them slower: then send it again after "
        "`Retry-After` seconds.",
    ),
    ProblemType(
        "storage-unavailable",
        503,
        "Storage unavailable",
        "The storage of the service cannot be reached, read or written. Nothing of the request was kept, except that a "
        "job that was accepted before goes on. Send the request again after `Retry-After` seconds; the service "
        "recovers by itself. Its log has the storage's own message.",
    ),
    ProblemType(
        "not-ready",
        503,
        "Not ready",
        "`/readyz` says what is missing: Redis, the store, or a ready worker for each group. A job is not deleted "
        "while the list of jobs is rebuilt, after Redis has lost it: send the request again after `Retry-After` "
        "seconds.",
    ),
    ProblemType(
        "storage-full",
        507,
        "Storage full",
        "The disk or the bucket of the service is full, or its quota is used up. Nothing of the request was kept. The "
        "operator of the service has to make room; workers wait, and go on by themselves. Send the request again after "
        "`Retry-After` seconds.",
    ),
)

PROBLEMS: dict[str, ProblemType] = {kind.name: kind for kind in _TYPES}


def document() -> str:
    """The content of docs/problems.md; `python -m app.problem_types > docs/problems.md` writes it."""
    head = (
        "# Problems\n\nEvery error of the API is `application/problem+json` (RFC 9457): `type`, `title`, `status`, "
        "`detail`, and for some `errors`.\n`type` is a stable relative URI, `/problems/NAME`; the service serves the "
        "text below at it. `title` and\n`detail` are texts for people and may change.\n"
    )
    return "\n".join([head, *(kind.page() for kind in _TYPES)])


if __name__ == "__main__":
    print(document(), end="")
