"""From a scene and a model to class codes and confidence on the scene's grid."""
