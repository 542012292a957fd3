"""When a classifier is refitted: the labelled images that its fit is planned on. The fit itself is a job's work."""

from dataclasses import dataclass, replace

from orchard_jobs.classifier.stored import StoredClassifier, read_classifier, read_label_counts
from orchard_jobs.contract.digests import digest_of
from orchard_jobs.contract.jobs import ClassifierFit, Projection
from orchard_jobs.contract.layout import model_path
from orchard_jobs.contract.manifest import ModelReference

from orchard.models.kinds import CLASSIFIER
from orchard.models.labels import ClassChoice, Counts, LabelMeaning, count_labels, label_meaning, total
from orchard.models.merged_moments import class_moments_files
from orchard.models.model import MergedVersion, Promotion, model_reference, sources_of
from orchard.models.model_plan import ModelPlan, freeze_projection, keep_current, projection_of
from orchard.models.state import ModelState, lacking_of, readable_of
from orchard.settings import Settings
from orchard.tables.commit_rule import Tables


def classifier_id_of(backbone: str, meaning: LabelMeaning, sources: tuple[MergedVersion, ...]) -> str:
    """Return the id of the classifier that is fitted on these batch versions with these meanings of labels."""
    return f"lda-{digest_of([backbone, meaning.fields(), list(map(list, sources))])[:16]}"


def decide_classifier(tables: Tables, settings: Settings, found: ModelState) -> ModelPlan:
    """Keep the current classifier, or plan the fit of one.

    One is fitted when there is none, when classes appeared, or when the labelled images grew by more than
    ORCHARD_CLASSIFIER_GROWTH. It is also fitted when what labels mean changed, or when a batch that the current one was fitted
    on is no longer published.
    """
    meaning = label_meaning(settings.classifier)
    current = _Current.of(tables, found, meaning)
    reason = "there is no classifier yet" if current is None else current.refit_reason(settings)
    if reason is None:
        return keep_current(tables, found, "its classes and labelled images are nearly those that there are")
    return _plan_fit(tables, settings, found, reason, meaning)


@dataclass(frozen=True)
class _Current:
    """The current classifier, and the labelled images that there are now.

    Attributes:
        stored: the classifier.
        meaning: what labels mean by the settings.
        published: the (batch_id, manifest_digest) of what is published.
        fresh: labelled images of batch versions that it was not fitted on.
        counts: labelled images of all.
    """

    stored: StoredClassifier
    meaning: LabelMeaning
    published: tuple[MergedVersion, ...]
    fresh: Counts
    counts: Counts

    @classmethod
    def of(cls, tables: Tables, found: ModelState, meaning: LabelMeaning) -> "_Current | None":
        if found.promotion is None or found.is_lost:
            return None
        reference = model_reference(tables.warehouse, found.promotion.model_id, CLASSIFIER)
        stored, published = read_classifier(tables.warehouse, reference), sources_of(found.versions)
        held = set(stored.sources)
        new = [one for one in found.versions if (one.batch_id, one.manifest_digest) not in held]
        fresh = total(count_labels(tables.warehouse, new, meaning.unlabelled).values())
        if held <= set(published):
            counts = total([read_label_counts(tables.warehouse, reference), fresh])
        else:
            counts = total(count_labels(tables.warehouse, found.versions, meaning.unlabelled).values())
        return cls(stored, meaning, published, fresh, counts)

    def refit_reason(self, settings: Settings) -> str | None:
        """Return why another one is to be fitted; None when it is not."""
        stored = self.stored
        if classifier_id_of(stored.backbone, self.meaning, stored.sources) != stored.model_id:
            return "ORCHARD_CLASSES, ORCHARD_UNLABELLED or ORCHARD_CLASS_ROWS changed"
        gone = {batch_id for batch_id, _ in stored.sources} - {batch_id for batch_id, _ in self.published}
        if gone:
            return f"{len(gone)} batches that it was fitted on are no longer published"
        appeared = sorted(self.meaning.classes_of(self.counts).names - set(stored.classifier.classes))
        if appeared:
            return f"classes appeared: {', '.join(appeared[:5])}{', ...' if len(appeared) > 5 else ''}"
        grown = sum(self.fresh.values())
        if grown > settings.classifier.growth * stored.n:
            return f"{grown} labelled images are new to it, of {stored.n} that it was fitted on"
        return None


def _too_few(tables: Tables, found: ModelState, choice: ClassChoice) -> ModelPlan:
    there = "is 1" if choice.names else "is none"
    why = f"a classifier needs two classes of enough labelled images, there {there}"
    if choice.left_out:
        why += "; too few: " + ", ".join(f"{name} ({rows})" for name, rows in sorted(choice.left_out.items())[:5])
    if found.promotion is not None and not found.is_lost:
        return keep_current(tables, found, why)
    return ModelPlan("none", why, found.considered)


def _plan_fit(tables: Tables, settings: Settings, found: ModelState, reason: str, meaning: LabelMeaning) -> ModelPlan:
    counts = count_labels(tables.warehouse, found.versions, meaning.unlabelled)
    choice = meaning.classes_of(total(counts.values()))
    if len(choice.names) < 2:
        return _too_few(tables, found, choice)
    versions, held_out = tuple(counts), choice.hold_out(counts.values())
    backbone, unlabelled = found.published.backbone, meaning.unlabelled
    # Held-out contents part the rows of a batch, whose class moments cannot be parted.
    summed = class_moments_files(tables, backbone, versions, unlabelled) if held_out == "batches" else {}
    model_id = classifier_id_of(backbone, meaning, sources_of(versions))
    fit = ClassifierFit(
        model=ModelReference(model_id, model_path(model_id, CLASSIFIER.models), len(choice.names)),
        versions=versions,
        class_of=tuple(sorted(choice.class_of.items())),
        left_out=tuple(sorted(choice.left_out.items())),
        unlabelled=unlabelled,
        held_out=held_out,
        rows=total(counts.values()).total(),
        current=_rival(tables, found, model_id),
        margin=settings.classifier.promotion_margin,
        class_moments=tuple((version.batch_id, path) for version, path in summed.items()),
    )
    own = readable_of(found.published, lacking_of(tables, CLASSIFIER, [model_id], versions))[model_id]
    work = projection_of(tables.warehouse, found, found.lacking_of_pins(model_id))
    work = replace(work, projections=(*((Projection(fit.model, own),) if own else ()), *work.projections), fit=fit)
    considered = found.considered_with(Promotion(0, model_id))
    plan = ModelPlan("fit", reason, considered, model_id, judged=found.promotion, considered_if_kept=found.considered)
    return freeze_projection(tables.warehouse, plan, work)


def _rival(tables: Tables, found: ModelState, model_id: str) -> ModelReference | None:
    """Return the current classifier, unless its file was lost or the planned one is itself."""
    if found.promotion is None or found.is_lost or found.promotion.model_id == model_id:
        return None
    return model_reference(tables.warehouse, found.promotion.model_id, CLASSIFIER)
