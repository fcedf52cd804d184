"""ONNX files read and run without the onnx package.

The messages are those of onnx.proto (field numbers from github.com/onnx/onnx), as far as torch
writes them; the operators are those of its specification, in torch's functions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from torch import Tensor

_FLOAT, _INT64, _INT32, _STRING, _MESSAGE, _BYTES = 2, 3, 5, 9, 11, 12
# name: (number, type or message, whether it is repeated)
_MESSAGES: dict[str, dict[str, tuple[int, int | str, bool]]] = {
    'Model': {
        'ir_version': (1, _INT64, False),
        'graph': (7, 'Graph', False),
        'opset_import': (8, 'Opset', True),
        'metadata_props': (14, 'Entry', True),
    },
    'Opset': {'domain': (1, _STRING, False), 'version': (2, _INT64, False)},
    'Entry': {'key': (1, _STRING, False), 'value': (2, _STRING, False)},
    'Graph': {
        'node': (1, 'Node', True),
        'initializer': (5, 'Tensor', True),
        'input': (11, 'Value', True),
        'output': (12, 'Value', True),
    },
    'Node': {
        'input': (1, _STRING, True),
        'output': (2, _STRING, True),
        'op_type': (4, _STRING, False),
        'attribute': (5, 'Attribute', True),
    },
    'Attribute': {
        'name': (1, _STRING, False),
        'f': (2, _FLOAT, False),
        'i': (3, _INT64, False),
        's': (4, _BYTES, False),
        't': (5, 'Tensor', False),
        'ints': (8, _INT64, True),
        'type': (20, _INT32, False),
    },
    'Tensor': {
        'dims': (1, _INT64, True),
        'data_type': (2, _INT32, False),
        'name': (8, _STRING, False),
        'raw_data': (9, _BYTES, False),
    },
    'Value': {'name': (1, _STRING, False), 'type': (2, 'Type', False)},
    'Type': {'tensor_type': (1, 'TensorType', False)},
    'TensorType': {'elem_type': (1, _INT32, False), 'shape': (2, 'Shape', False)},
    'Shape': {'dim': (1, 'Dimension', True)},
    'Dimension': {'dim_value': (1, _INT64, False), 'dim_param': (2, _STRING, False)},
}
_DTYPES = {1: torch.float32, 6: torch.int32, 7: torch.int64}


def parse(content: bytes) -> Any:
    """The ModelProto in a file."""
    file = descriptor_pb2.FileDescriptorProto(name='part_of_onnx.proto', package='part_of_onnx')
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (number, kind, repeated) in fields.items():
            added = message.field.add(name=field, number=number, label=3 if repeated else 1)
            if isinstance(kind, str):
                added.type, added.type_name = _MESSAGE, f'.part_of_onnx.{kind}'
            else:
                added.type = kind
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    cls = message_factory.GetMessageClass(pool.FindMessageTypeByName('part_of_onnx.Model'))
    return cls.FromString(content)


def metadata(model: Any) -> dict[str, str]:
    """Its metadata_props."""
    return {entry.key: entry.value for entry in model.metadata_props}


def run(model: Any, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What the model computes, by the names of its outputs."""
    values = {tensor.name: _tensor(tensor) for tensor in model.graph.initializer} | dict(inputs)
    for node in model.graph.node:
        attributes = {attribute.name: _attribute(attribute) for attribute in node.attribute}
        given = [values[name] if name else None for name in node.input]
        values[node.output[0]] = _OPERATORS[node.op_type](attributes, *given)
    return {output.name: values[output.name] for output in model.graph.output}


def _tensor(message: Any) -> Tensor:
    flat = torch.frombuffer(bytearray(message.raw_data), dtype=_DTYPES[message.data_type])
    return flat.reshape(list(message.dims))


def _attribute(message: Any) -> Any:
    # AttributeProto.AttributeType: FLOAT 1, INT 2, STRING 3, TENSOR 4, INTS 7
    match message.type:
        case 1:
            return message.f
        case 2:
            return message.i
        case 3:
            return message.s.decode()
        case 4:
            return _tensor(message.t)
        case 7:
            return list(message.ints)
    raise NotImplementedError(f'attribute {message.name} of type {message.type}')


def _symmetric(attributes: dict[str, Any]) -> list[int]:
    pads = attributes.get('pads', [0, 0, 0, 0])
    assert pads[:2] == pads[2:]
    return pads[:2]


def _conv(attributes: dict[str, Any], x: Tensor, weight: Tensor, bias: Tensor | None = None):
    return F.conv2d(
        x,
        weight,
        bias,
        stride=attributes['strides'],
        padding=_symmetric(attributes),
        dilation=attributes['dilations'],
        groups=attributes['group'],
    )


def _max_pool(attributes: dict[str, Any], x: Tensor) -> Tensor:
    return F.max_pool2d(
        x,
        attributes['kernel_shape'],
        stride=attributes['strides'],
        padding=_symmetric(attributes),
        ceil_mode=bool(attributes.get('ceil_mode', 0)),
    )


def _layer_norm(attributes: dict[str, Any], x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    assert attributes['axis'] == -1
    return F.layer_norm(x, x.shape[-1:], scale, bias, attributes['epsilon'])


_OPERATORS: dict[str, Callable[..., Tensor]] = {
    'Add': lambda _, a, b: a + b,
    'Clip': lambda _, x, low, high: x.clamp(low, high),
    'Constant': lambda attributes: attributes['value'],
    'Conv': _conv,
    'Div': lambda _, a, b: a / b,
    'Erf': lambda _, x: torch.erf(x),
    'Identity': lambda _, x: x,
    'LayerNormalization': _layer_norm,
    'MatMul': lambda _, a, b: a @ b,
    'MaxPool': _max_pool,
    'Mul': lambda _, a, b: a * b,
    'Relu': lambda _, x: x.relu(),
    'Transpose': lambda attributes, x: x.permute(attributes['perm']),
}
