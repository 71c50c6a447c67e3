"""Bundles: the artefact folder that runs without torch; see docs/bundle.md."""

from vlmquant.bundle.manifest import Manifest as Manifest
from vlmquant.bundle.open import open_bundle as open_bundle
from vlmquant.bundle.verify import VerifyReport as VerifyReport
from vlmquant.bundle.verify import verify as verify
