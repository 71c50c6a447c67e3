"""Bundles: the artefact folder that runs without torch; see docs/bundle.md."""

from vlmquant.bundle.blip_runtime import open_blip as open_blip
from vlmquant.bundle.manifest import Manifest as Manifest
from vlmquant.bundle.runtime import VerifyReport as VerifyReport
from vlmquant.bundle.runtime import open_bundle as open_bundle
from vlmquant.bundle.runtime import verify as verify
