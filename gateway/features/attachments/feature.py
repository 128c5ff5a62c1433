"""The feature of attachments: the check at the door, uploads and downloads, and the files of messages."""

from gateway.features.attachments.check import AttachmentCheck
from gateway.features.attachments.fetched_files import FetchedFiles
from gateway.features.attachments.openapi import WORDS
from gateway.features.attachments.read_door import MessageFileDoor
from gateway.features.attachments.upload_door import AttachmentDoor, Reading
from gateway.features.attachments.upload_files import UploadFiles
from gateway.features.attachments.uploads import Uploads
from gateway.features.feature import Base, Core, Faces, Feature
from gateway.flow.housekeeping import Chore
from gateway.postgres.embedded import FREE_BYTES_MIN, free_bytes
from gateway.receive.content import ContentRule
from gateway.route.configured import uploads_base


def feature(base: Base) -> Feature:
    config, runtime = base.config, base.runtime
    rules, place = config.attachments, uploads_base(config)
    uploads = _uploads(base)

    def faces(core: Core) -> Faces:
        reading = Reading(uploads, core.load.downloads)
        return Faces(
            doors=(
                AttachmentDoor(
                    uploads=uploads,
                    reading=reading,
                    authenticator=core.authenticator,
                    rules=rules,
                    base=place,
                    places=core.load.uploads,
                ),
                MessageFileDoor(
                    database=runtime.database,
                    authenticator=core.authenticator,
                    reading=reading,
                    content=ContentRule(runtime.database, base.audit),
                    outbound=core.outbound,
                    fetched=FetchedFiles(
                        config.data / "fetched",
                        rules.cache_bytes,
                        lambda: free_bytes(config.data) >= FREE_BYTES_MIN,
                    ),
                    journal=runtime.journal,
                    rules=rules,
                    base=place,
                    load=core.load,
                ),
            ),
            words=WORDS,
            chores=(
                Chore("uploads", 600, lambda: uploads.clear(base.config.retention.messages_days)),
                Chore("stray files", 3600, uploads.clear_strays),
            ),
        )

    return Feature(faces, checks=(AttachmentCheck(rules, uploads, place),))


def _uploads(base: Base) -> Uploads:
    """Returns the uploads: on disk where the database is our own; in the database where gateways share it but no disk."""
    config, rules, shared = base.config, base.config.attachments, bool(base.config.database.url)
    in_files = rules.store == "file" or (rules.store == "auto" and not shared)
    on_our_disk = in_files or not shared
    return Uploads(
        base.runtime.database,
        base.runtime.row_ids,
        UploadFiles(config.data / "attachments"),
        in_files=in_files,
        unsent_bytes_max=rules.unsent_bytes,
        total_bytes_max=rules.agent_bytes,
        room=lambda: not on_our_disk or free_bytes(config.data) >= FREE_BYTES_MIN,
    )
