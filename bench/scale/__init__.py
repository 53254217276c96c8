"""CC3M's number of images through the service, beside task queues, and more workers beside one."""
