"""From one simulator to the next: randomisation, ADR, system identification, transfer."""
