"""What one request, and all of them together, may cost."""

from dataclasses import dataclass, fields

from datamodules.files.errors import UserError
from datamodules.images.read import MAX_PIXELS

TOP_K = 5


@dataclass(frozen=True)
class Limits:
    """Limits of a server; those without an option of ``cbam100 serve`` are the same for all.

    Attributes:
        max_payload_size: Bytes in the body of a request, with everything in it.
        max_pixels: Width times height of a decoded image.
        max_queue_size: Requests that wait for their answer, once their bodies have arrived completely.
        max_batch_size: Images that enter the network together; also the most that one request may hold.
        upload_seconds: Time from the first to the last byte of a body.

    Raises:
        UserError: A limit is not positive.
    """

    max_payload_size: int = 16_000_000
    max_pixels: int = MAX_PIXELS
    max_queue_size: int = 64
    max_batch_size: int = 16
    upload_seconds: float = 30.0

    def __post_init__(self) -> None:
        for field in fields(self):
            if (value := getattr(self, field.name)) <= 0:
                option = "--data.max_pixels" if field.name == "max_pixels" else f"--{field.name}"
                raise UserError(f"{option} must be greater than 0, got {value}: {field.default} is the default")

    @property
    def max_upload_memory(self) -> int:
        """Bytes of all bodies that have no answer yet: sixteen of the largest, or hundreds of usual ones."""
        return 16 * self.max_payload_size
