"""Apache Kafka as a sink: Produce requests of our own over aiokafka's connections."""
