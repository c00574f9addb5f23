//! DeleteTopics (key 20, v1-v6): deletes topics by name, from v6 on also by id.
//!
//! v5: error messages. Answered after the commit; shards drop the partitions' data afterwards. Internal topics too, as in Kafka: with
//! `__consumer_offsets` all groups and their offsets go, and the next request for a coordinator makes it anew.
//! `delete.topic.enable=false`: TOPIC_DELETION_DISABLED.

use std::time::Duration;

use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::{DeleteTopicsRequest, DeleteTopicsResponse};
use uuid::Uuid;

use super::support::text;
use crate::handlers::context::Context;
use crate::metadata::{MetadataError, TopicName};

/// One topic of the request: its name, or its id.
struct Asked {
    name: Option<kafka_protocol::messages::TopicName>,
    id: Uuid,
}

pub(super) async fn handle(ctx: &Context, version: i16, request: DeleteTopicsRequest) -> DeleteTopicsResponse {
    let asked: Vec<Asked> = if version >= 6 {
        request.topics.into_iter().map(|topic| Asked { name: topic.name, id: topic.topic_id }).collect()
    } else {
        request.topic_names.into_iter().map(|name| Asked { name: Some(name), id: Uuid::nil() }).collect()
    };
    let names = asked.iter().map(|topic| match &topic.name {
        Some(name) => TopicName::Name(name.to_string()),
        None => TopicName::Id(topic.id),
    });
    let timeout = Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0).max(1));
    let deleted = ctx.metadata.delete_topics(names.collect(), timeout).await;
    let responses = asked.into_iter().zip(deleted).map(|(topic, result)| answer(version, topic, result)).collect();
    DeleteTopicsResponse::default().with_responses(responses)
}

fn answer(version: i16, asked: Asked, result: Result<(String, Uuid), MetadataError>) -> DeletableTopicResult {
    let answer = DeletableTopicResult::default();
    match result {
        Ok((name, id)) => {
            let answer = answer.with_name(Some(kafka_protocol::messages::TopicName(text(&name))));
            if version >= 6 { answer.with_topic_id(id) } else { answer }
        }
        Err(error) => {
            let answer = answer.with_name(asked.name).with_error_code(error.code().code());
            let answer = if version >= 6 { answer.with_topic_id(asked.id) } else { answer };
            if version >= 5 { answer.with_error_message(Some(text(&error.to_string()))) } else { answer }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use kafka_protocol::protocol::Encodable;

    use super::*;

    #[test]
    fn answers_encode_in_every_version() {
        for version in 1..=6 {
            let name = || Some(kafka_protocol::messages::TopicName(text("t")));
            for result in [Ok(("t".to_owned(), Uuid::from_u128(3))), Err(MetadataError::UnknownTopic)] {
                let answer = answer(version, Asked { name: name(), id: Uuid::nil() }, result);
                let response = DeleteTopicsResponse::default().with_responses(vec![answer]);
                response.encode(&mut BytesMut::new(), version).unwrap();
            }
        }
    }
}
