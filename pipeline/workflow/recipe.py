"""What a model was given to see, kept in its file, so that scenes it has never seen are made ready in the same way."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from pipeline.config import Inputs
from pipeline.errors import ModelError
from pipeline.scenes.opening import open_scene
from pipeline.workflow.inputs import join_scenes
from pipeline.workflow.ledgers import plain_scenes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.model.bundle import ModelBundle
    from pipeline.scenes.scene import Source

RECIPE = "inputs_section"
"""Key of the model's provenance."""


def recipe_of(inputs: Inputs, sources: Sequence[Source]) -> dict[str, Any]:
    """The section of the configuration with the bands that were read written out, JSON-ready."""
    return inputs.model_dump(mode="json") | {"bands": list(plain_scenes(sources[0])[0].band_names)}


def sources_for(bundle: ModelBundle, paths: Sequence[str]) -> tuple[Source, ...]:
    """Scenes as a model wants them: on its resolution, with its masks, joined in time, with its indices and layers.

    Scenes of a model of stacks or composites become one source; those of other models one each.

    Raises:
        ModelError: the scenes cannot be made into what the model was trained on.
        SceneError: a scene cannot be opened.
    """
    inputs = _recipe(bundle)
    _check_layers(inputs)
    opened = [("", open_scene(path, resolution_m=inputs.resolution_m, mask=inputs.mask)) for path in paths]
    _check_dates(bundle, inputs, len(opened))
    for _, scene in opened:
        missing = [name for name in inputs.bands or () if name not in scene.band_names]
        if missing:
            raise ModelError(
                f"scene lacks band {', '.join(missing)} of the model",
                path=scene.path,
                got=", ".join(scene.band_names),
                expected=", ".join(inputs.bands or ()),
                fix="use a product that has them, or a model trained on the bands there are",
            )
    return tuple(bundle.check(source) for source in join_scenes(opened, inputs))


def _recipe(bundle: ModelBundle) -> Inputs:
    """The section; models from before it was kept say their bands and indices."""
    indices = [str(name) for name in bundle.provenance.get("indices", ())]
    own = [name for name in bundle.bands if name not in {index.lower() for index in indices}]
    kept = bundle.provenance.get(RECIPE, {"bands": own, "indices": indices})
    try:
        return Inputs.model_validate(kept)
    except ValidationError as err:
        what = "the model was made by another version and cannot be given scenes without a configuration"
        got, fix = err.errors()[0]["msg"], "map with the configuration it was trained with"
        raise ModelError(what, got=got, fix=fix) from err


def _check_layers(inputs: Inputs) -> None:
    for layer in inputs.layers:
        if not layer.path.startswith(("/vsi", "http://", "https://")) and not Path(layer.path).exists():
            raise ModelError(
                f"the model needs a further raster ({layer.kind}) that is not there any more",
                path=layer.path,
                fix="put it back, or map with a configuration whose inputs.layers name one",
            )


def _check_dates(bundle: ModelBundle, inputs: Inputs, count: int) -> None:
    """Refuse another number of dates than a stack's model knows, and a stack called by its dates."""
    if inputs.time != "stack" or inputs.stack.regular is not None:
        return
    first = [name for name in bundle.bands if name.startswith(f"{(inputs.bands or ('',))[0]}_")]
    if inputs.stack.naming == "order" and count != len(first):
        raise ModelError(
            "number of scenes for a model of stacked dates", got=count, expected=f"{len(first)}, one --scene per date"
        )
