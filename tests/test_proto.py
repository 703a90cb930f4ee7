"""The contract: the committed stubs are those of the proto, and the proto carries the documented contract whole."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from graybox.proto import experiment_service_pb2 as pb
from graybox.proto import experiment_service_pb2_grpc as pb_grpc
from tests.conftest import REPOSITORY

# The documented contract, written down from the document: every message with its fields, types and numbers.
DOCUMENTED: dict[str, str] = {
    "ExperimentCommandRequest": """
        HyperParameterChange hyper_parameter_change = 1; PlotNoteOperation plot_note_operation = 2;
        LoadCheckpointOperation load_checkpoint_operation = 3; bool get_hyper_parameters = 4;
        bool get_interactive_layers = 5; bool get_data_records = 6; string get_single_layer_info_id = 7""",
    "CommandResponse": """
        bool success = 1; string message = 2; repeated HyperParameterDesc hyper_parameters_descs = 3;
        repeated LayerRepresentation layer_representations = 4; SampleStatistics sample_statistics = 5""",
    "GetLatestLoggerDataRequest": """
        bool request_full_history = 1; int32 max_points = 2; bool break_by_slices = 3; repeated string tags = 4;
        string graph_name = 5""",
    "GetLatestLoggerDataResponse": "repeated LoggerDataPoint points = 1",
    "LoggerDataPoint": """
        string metric_name = 1; int32 model_age = 2; float metric_value = 3; string experiment_hash = 4;
        int32 timestamp = 5; string sample_id = 6; bool is_evaluation_marker = 7; string split_name = 8;
        repeated string evaluation_tags = 9; string point_note = 10; bool audit_mode = 11""",
    "RestoreCheckpointRequest": "string experiment_hash = 1",
    "RestoreCheckpointResponse": "bool success = 1; string message = 2",
    "TriggerEvaluationRequest": "string split_name = 1; repeated string tags = 2; bool use_full_set = 3",
    "TriggerEvaluationResponse": "bool success = 1; string message = 2",
    "GetEvaluationStatusRequest": "",
    "GetEvaluationStatusResponse": """
        string status = 1; int32 current = 2; int32 total = 3; string message = 4; string error = 5;
        string split_name = 6""",
    "CancelEvaluationRequest": "string reason = 1",
    "CancelEvaluationResponse": "bool success = 1; string message = 2",
    "GetDataSamplesRequest": """
        int32 start_index = 1; int32 records_cnt = 2; bool include_raw_data = 3; int32 resize_width = 4;
        int32 resize_height = 5""",
    "DataSamplesResponse": "bool success = 1; string message = 2; repeated DataRecord data_records = 3",
    "DataRecord": """
        string sample_id = 1; string origin = 2; map<string, string> metadata = 3; bytes raw_data = 4""",
    "DataQueryRequest": "string query = 1; bool is_natural_language = 2",
    "DataQueryResponse": """
        bool success = 1; string message = 2; int32 number_of_all_samples = 3;
        int32 number_of_samples_in_the_loop = 4; int32 number_of_discarded_samples = 5;
        repeated string unique_tags = 6; string agent_intent_type = 7; string analysis_result = 8""",
    "DataEditRequest": """
        string stat_name = 1; repeated string samples_ids = 2; repeated string sample_origins = 3;
        string string_value = 4; bool bool_value = 5; string type = 6""",
    "DataEditsResponse": "bool success = 1; string message = 2",
    "GetDataSplitsRequest": "",
    "DataSplitsResponse": "bool success = 1; repeated string split_names = 2",
    "GetWeightsRequest": "string layer_id = 1",
    "WeightsResponse": "bytes weights_data = 1; string format = 2",
    "GetActivationsRequest": "string layer_id = 1; string sample_id = 2",
    "ActivationsResponse": "bytes activation_data = 1; string shape = 2",
    "GetSamplesRequest": "repeated string sample_ids = 1; int32 resize_width = 2; int32 resize_height = 3",
    "SamplesResponse": "repeated Sample samples = 1",
    "Sample": "string sample_id = 1; bytes image = 2; bytes segmentation_mask = 3; bytes reconstruction = 4",
}
# Written in the document only by their names and what is said of their fields.
NAMED = {
    "HyperParameterChange": "HyperParameters hyper_parameters = 1",
    "HyperParameters": "bool is_training = 7",
    "PlotNoteOperation": "",
    "LoadCheckpointOperation": "",
    "HyperParameterDesc": "",
    "LayerRepresentation": "",
    "SampleStatistics": "",
}

RPCS = {
    "ExperimentCommand": ("ExperimentCommandRequest", "CommandResponse"),
    "GetLatestLoggerData": ("GetLatestLoggerDataRequest", "GetLatestLoggerDataResponse"),
    "RestoreCheckpoint": ("RestoreCheckpointRequest", "RestoreCheckpointResponse"),
    "TriggerEvaluation": ("TriggerEvaluationRequest", "TriggerEvaluationResponse"),
    "GetEvaluationStatus": ("GetEvaluationStatusRequest", "GetEvaluationStatusResponse"),
    "CancelEvaluation": ("CancelEvaluationRequest", "CancelEvaluationResponse"),
    "GetDataSamples": ("GetDataSamplesRequest", "DataSamplesResponse"),
    "ApplyDataQuery": ("DataQueryRequest", "DataQueryResponse"),
    "EditDataSample": ("DataEditRequest", "DataEditsResponse"),
    "GetDataSplits": ("GetDataSplitsRequest", "DataSplitsResponse"),
    "GetWeights": ("GetWeightsRequest", "WeightsResponse"),
    "GetActivations": ("GetActivationsRequest", "ActivationsResponse"),
    "GetSamples": ("GetSamplesRequest", "SamplesResponse"),
    "ManipulateWeights": ("ManipulateWeightsRequest", "ManipulateWeightsResponse"),
    "ExportSamples": ("ExportSamplesRequest", "ExportChunk"),
}
IN_PIECES = {"ExportSamples"}
LOWEST_OWN_FIELD = 20

# Where every message of an RPC has its run id: (request, answer). Below 20 are those of our own RPCs. The pieces of a
# file have none: the file's name, which comes with the first, has it.
RUN_IDS = {
    "ExperimentCommand": (23, 20),
    "GetLatestLoggerData": (21, 22),
    "RestoreCheckpoint": (22, 22),
    "TriggerEvaluation": (20, 20),
    "GetEvaluationStatus": (20, 20),
    "CancelEvaluation": (20, 20),
    "GetDataSamples": (21, 24),
    "ApplyDataQuery": (20, 21),
    "EditDataSample": (22, 22),
    "GetDataSplits": (20, 20),
    "GetWeights": (21, 20),
    "GetActivations": (21, 21),
    "GetSamples": (21, 20),
    "ManipulateWeights": (10, 5),
    "ExportSamples": (1, None),
}


def compile_proto(folder: Path) -> descriptor_pb2.FileDescriptorProto:
    """The descriptor of experiment_service.proto as it is now."""
    target = folder / "descriptors"
    subprocess.run(
        [
            sys.executable, "-m", "grpc_tools.protoc", f"-Igraybox/proto={REPOSITORY}",
            f"--descriptor_set_out={target}", "graybox/proto/experiment_service.proto",
        ],
        check=True,
        cwd=folder,
    )  # fmt: skip
    (file,) = descriptor_pb2.FileDescriptorSet.FromString(target.read_bytes()).file
    forget_json_names(file.message_type)
    return file


def forget_json_names(messages: object) -> None:
    """Derived from the field names, and left out of the stubs by the compiler."""
    for message in messages:  # type: ignore[attr-defined]
        for field in message.field:
            field.ClearField("json_name")
        forget_json_names(message.nested_type)


def type_of(field: FieldDescriptor) -> str:
    """A field's type as it is written in a proto file."""
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        key, value = field.message_type.fields
        return f"map<{type_of(key)}, {type_of(value)}>"
    if field.message_type is not None:
        name = field.message_type.name
    elif field.enum_type is not None:
        name = field.enum_type.name
    else:
        name = descriptor_pb2.FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
    return f"repeated {name}" if field.is_repeated else name


def fields_of(message: Descriptor) -> dict[str, tuple[str, int]]:
    return {field.name: (type_of(field), field.number) for field in message.fields}


def written(text: str) -> dict[str, tuple[str, int]]:
    """The fields of a line of the tables above."""
    found = {}
    for line in filter(None, (part.strip() for part in " ".join(text.split()).split(";"))):
        declaration, _, number = line.rpartition(" = ")
        kind, _, name = declaration.rpartition(" ")
        found[name] = (kind, int(number))
    return found


def test_the_committed_stubs_are_those_of_the_proto(tmp_path: Path) -> None:
    stubs = descriptor_pb2.FileDescriptorProto.FromString(pb.DESCRIPTOR.serialized_pb)
    assert compile_proto(tmp_path) == stubs, "the stubs are older than the proto; run `make proto`"


def test_the_grpc_stub_has_every_rpc() -> None:
    service = pb.DESCRIPTOR.services_by_name["ExperimentService"]
    names = {method.name for method in service.methods}
    servicer = {name for name in vars(pb_grpc.ExperimentServiceServicer) if not name.startswith("_")}
    assert names == servicer


def test_the_type_stub_has_every_message_and_field() -> None:
    tree = ast.parse((REPOSITORY / "graybox" / "proto" / "experiment_service_pb2.pyi").read_text())
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    for message in pb.DESCRIPTOR.message_types_by_name.values():
        body = classes[message.name].body
        members = {node.name for node in body if isinstance(node, ast.FunctionDef)}
        members |= {ast.unparse(node.target) for node in body if isinstance(node, ast.AnnAssign)}
        assert {field.name for field in message.fields} <= members, message.name


def test_all_rpcs_of_the_contract() -> None:
    service = pb.DESCRIPTOR.services_by_name["ExperimentService"]
    found = {method.name: (method.input_type.name, method.output_type.name) for method in service.methods}
    assert found == RPCS
    assert list(pb.DESCRIPTOR.services_by_name) == ["ExperimentService"]
    assert service.full_name == "ExperimentService"
    assert not any(method.client_streaming for method in service.methods)
    assert {method.name for method in service.methods if method.server_streaming} == IN_PIECES


def test_every_request_and_every_answer_has_a_run_id() -> None:
    assert RUN_IDS.keys() == RPCS.keys()
    for method, messages in RPCS.items():
        found = [fields_of(pb.DESCRIPTOR.message_types_by_name[message]).get("run_id") for message in messages]
        assert found == [number and ("string", number) for number in RUN_IDS[method]], method


@pytest.mark.parametrize("name", sorted(DOCUMENTED))
def test_documented_messages(name: str) -> None:
    found = fields_of(pb.DESCRIPTOR.message_types_by_name[name])
    documented = written(DOCUMENTED[name])
    own = {field: value for field, value in found.items() if value[1] >= LOWEST_OWN_FIELD}
    assert {field: value for field, value in found.items() if field not in own} == documented


@pytest.mark.parametrize("name", sorted(NAMED))
def test_messages_the_document_only_names(name: str) -> None:
    found = fields_of(pb.DESCRIPTOR.message_types_by_name[name])
    assert found.items() >= written(NAMED[name]).items()
    assert found, f"{name} has no fields"


def test_the_commands_exclude_each_other() -> None:
    oneof = pb.DESCRIPTOR.message_types_by_name["ExperimentCommandRequest"].oneofs_by_name["command"]
    names = {field.name for field in oneof.fields}
    assert names >= {"hyper_parameter_change", "plot_note_operation", "load_checkpoint_operation"}
