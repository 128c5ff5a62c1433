"""What operators steer a running gateway with: queue, destinations, dead letters and peers."""
