-- Sends films to msloc-edge when their series is stable; msloc-edge sends its objects back into the same study.
-- A job that failed, because nobody listened, stays in /jobs: POST /jobs/ID/resubmit sends it again, and a film that
-- msloc-edge has had already does no harm.

local FILMS = { CR = true, DX = true }

function OnStableSeries(seriesId, tags, metadata)
  if FILMS[tags['Modality']] then
    local job = { Resources = { seriesId }, Synchronous = false }
    RestApiPost('/modalities/msloc-edge/store', DumpJson(job, true))
  end
end
