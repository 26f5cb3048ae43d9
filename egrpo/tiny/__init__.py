"""`tiny-flux-shapes`: a world of coloured shapes and a FLUX-layout model trained on it.

`captions` is the language (free of torch and numpy), `world` draws it, `tokenizers` and `build` make the model that
lies in `weights/`. The model exists so that every line of the FLUX adapter can run, be tested and be watched without
a download. What does not live here: the reward (`egrpo.rewards.shapes`) and anything that training needs.
"""
