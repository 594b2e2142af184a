from entrypoint.cni.wrap import Wrapping


def wrapping(settings, patch=None):
    """What these settings, and a patch, say of the configuration around a master."""
    return Wrapping(
        settings.multus_options,
        patch or {},
        settings.cni_version,
        settings.force_cni_version,
        settings.override_network_name,
    )
