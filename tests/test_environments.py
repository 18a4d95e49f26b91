from rpo_pipeline.environments import read_environments


def test_every_environment_is_read_with_its_own_folder_and_model(project):
    found = {environment.name: environment for environment in read_environments(project)}
    assert {"base", "smoke", "t5", "smollm2"} <= set(found)
    assert found["base"].data == project / "data"
    assert found["smoke"].data == project / "data/smoke"
    assert found["t5"].model_name == "rpo-policy-t5"
    assert len({environment.cache for environment in found.values()}) == 1
