"""A kind of contract for import-linter: some modules import the standard library, each other, and nothing else."""

import sys
from typing import cast

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, fields, output
from importlinter.domain.imports import Module


class StandardLibraryContract(Contract):
    """Modules that import the standard library and each other alone, whatever packages there are.

    Configuration options:
        - source_modules: the modules.
        - allowed_modules: what they may import besides, without what lies below it. (Optional.)
        - as_packages: whether all modules below them are meant, too; so it is by default.
    """

    type_name = "standard_library"

    source_modules = fields.SetField(subfield=fields.ModuleField())
    allowed_modules = fields.SetField(subfield=fields.ModuleField(), required=False)
    as_packages = fields.BooleanField(required=False, default=True)

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        """Return whether the contract is kept, with the imports that break it."""
        # Of an instance, a field is its value.
        sources = {module.name for module in cast(set[Module], self.source_modules)}
        allowed = {module.name for module in cast(set[Module], self.allowed_modules or set())}
        if self.as_packages:
            sources |= {inner for source in sources for inner in graph.find_descendants(source)}
        broken = [
            f"{importer} -> {imported}"
            for importer in sorted(sources)
            for imported in sorted(graph.find_modules_directly_imported_by(importer) - sources - allowed)
            if imported.partition(".")[0] not in sys.stdlib_module_names
        ]
        return ContractCheck(kept=not broken, metadata={"broken": broken})

    def render_broken_contract(self, check: ContractCheck) -> None:
        """Print the imports that break the contract."""
        for line in check.metadata["broken"]:
            output.print_error(f"{line} is neither of the standard library nor of the modules named with it.")
