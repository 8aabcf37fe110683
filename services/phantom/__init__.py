"""Raw scans made here: objects, receive coils, a scanner. For the demo, the doctor and the tests."""
