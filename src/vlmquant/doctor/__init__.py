"""What this machine is, and which arithmetic pays on it."""

from vlmquant.doctor.diagnosis import Diagnosis as Diagnosis
from vlmquant.doctor.diagnosis import examine as examine
